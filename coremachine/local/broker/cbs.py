"""`$cbs`: where clients put the token that authorizes them. This broker accepts any."""

from coremachine.local.broker import codec
from coremachine.local.broker.message import decode_request, encode_response

_ACCEPTED = 202
_BAD_REQUEST = 400


def answer_cbs(data: bytes) -> tuple[object, bytes]:
    """The request's reply-to and the encoded answer."""
    request = decode_request(data)
    operation = request.application_properties.get("operation")
    if operation == "put-token":
        code, text = _ACCEPTED, "Accepted"
    else:
        code, text = _BAD_REQUEST, f"expected the operation put-token, found {repr(operation)[:100]}"
    # Hyphenated here, camel case in $management.
    status = [
        (codec.string("status-code"), codec.int32(code)),
        (codec.string("status-description"), codec.string(text)),
    ]
    return request.reply_to, encode_response(request.message_id, status, codec.NULL)
