"""`$cbs`: where clients put the token that authorizes them. This broker accepts any."""

from coremachine.local.broker import codec
from coremachine.local.broker.message import decode_request, encode_response

_ACCEPTED = 202
_BAD_REQUEST = 400


def answer_cbs(request: bytes) -> bytes:
    properties, message_id, _token = decode_request(request)
    operation = properties.get("operation")
    if operation == "put-token":
        code, text = _ACCEPTED, "Accepted"
    else:
        code, text = _BAD_REQUEST, f"expected the operation put-token, found {operation!r}"
    # Hyphenated here, camel case in $management.
    status = [
        (codec.string("status-code"), codec.int32(code)),
        (codec.string("status-description"), codec.string(text)),
    ]
    return encode_response(message_id, status, codec.NULL)
