"""Model files and where they run: what is installed, loading with checks, devices, the lease, memory fall-back.

Weights are safetensors, never pickle of unknown origin. The embedded models lie in `resources/models/` with an
index, `models.json`, that holds each file's SHA-256; models that a user downloads or adds lie in a folder of
the user's with an index of the same form.
"""

from engine.models.files import check_hash, check_safetensors, fill_module, read_tensors
from engine.models.published import PUBLISHED, PublishedModel, add_model, download_model, remove_model
from engine.models.registry import (
    ModelInfo,
    installed_models,
    load_tensors,
    model_info,
    models_folder,
    publish_embedded,
    user_models_folder,
)
from engine.models.running import (
    MemoryLadder,
    describe_torch,
    is_out_of_memory,
    lease,
    lease_when_free,
    one_torch_thread,
    pick_torch_device,
    run_with_fallback,
)

__all__ = [
    "PUBLISHED",
    "MemoryLadder",
    "ModelInfo",
    "PublishedModel",
    "add_model",
    "check_hash",
    "check_safetensors",
    "describe_torch",
    "download_model",
    "fill_module",
    "installed_models",
    "is_out_of_memory",
    "lease",
    "lease_when_free",
    "one_torch_thread",
    "load_tensors",
    "model_info",
    "models_folder",
    "pick_torch_device",
    "publish_embedded",
    "read_tensors",
    "remove_model",
    "run_with_fallback",
    "user_models_folder",
]
