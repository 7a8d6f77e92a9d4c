"""The phone set of the content code: ARPAbet as the CMU dictionary has it, without stress, and silence first."""

SILENCE = "SIL"
_ARPABET = """
AA AE AH AO AW AY B CH D DH EH ER EY F G HH IH IY JH K L M N NG OW OY P R S SH T TH UH UW V W Y Z ZH
"""
PHONES = (SILENCE, *_ARPABET.split())
