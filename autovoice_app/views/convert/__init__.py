"""The Convert page: songs in, the same songs out in another voice."""

from autovoice_app.views.convert.page import ConvertPage

__all__ = ["ConvertPage"]
