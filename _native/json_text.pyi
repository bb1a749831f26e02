def json_string(text: bytes) -> bytes:
    """The text as a JSON string, quotation marks included. For tests, as is all of this module's Python side."""

def base64_text(data: bytes) -> bytes:
    """Padded base64 of the data."""

def base64_bytes(text: bytes) -> bytes | None:
    """What plain, padded base64 stands for; None if it is anything else."""

def unescaped(text: bytes) -> bytes | None:
    """What stands for a string between quotation marks; None if some escape is wrong, or it ends or breaks before."""
