"""Small apps, and whether an app with such a function is loaded: the same in Azure's worker and here."""

IMPORTS = "import typing\nimport azure.functions as func\n"
APP = IMPORTS + "app = func.FunctionApp()\n"
HTTP = APP + "@app.route(route='x')\n"
SB = APP + "@app.service_bus_queue_trigger(arg_name='m', queue_name='q', connection='C')\n"
MANY = (
    APP + "@app.service_bus_queue_trigger(arg_name='m', queue_name='q', connection='C', cardinality='many', "
    "data_type='string')\n"
)
TIMER = APP + "@app.timer_trigger(arg_name='t', schedule='0 * * * * *')\n"
SB_OUT = HTTP + "@app.service_bus_queue_output(arg_name='o', queue_name='q', connection='C')\n"
QUEUE_OUT = HTTP + "@app.queue_output(arg_name='o', queue_name='q', connection='C')\n"
BLOB_OUT = HTTP + "@app.blob_output(arg_name='o', path='c/b', connection='C')\n"
BLOB = APP + "@app.blob_trigger(arg_name='b', path='c/{name}', connection='C')\n"
REQ = "def f(req: func.HttpRequest"

LOADED = {
    "http": HTTP + REQ + ") -> func.HttpResponse: ...\n",
    "http without annotations": HTTP + "def f(req): ...\n",
    "http that returns text": HTTP + REQ + ") -> str: ...\n",
    "http as text": HTTP + "def f(req: str) -> str: ...\n",
    "http with context": HTTP + REQ + ", context: func.Context) -> str: ...\n",
    "http with a bare context": HTTP + REQ + ", context) -> str: ...\n",
    "http async": HTTP + "async " + REQ + ") -> str: ...\n",
    "http with a malformed route": APP + "@app.route(route='{x')\n" + REQ + ") -> str: ...\n",
    "message": SB + "def f(m: func.ServiceBusMessage): ...\n",
    "message without an annotation": SB + "def f(m): ...\n",
    "message as text": SB + "def f(m: str): ...\n",
    "message as bytes": SB + "def f(m: bytes): ...\n",
    "message to nothing": SB + "def f(m: func.ServiceBusMessage) -> None: ...\n",
    "message whose result is annotated": SB + "def f(m: func.ServiceBusMessage) -> int: ...\n",
    "messages": MANY + "def f(m: typing.List[func.ServiceBusMessage]): ...\n",
    "blob": BLOB + "def f(b: func.InputStream): ...\n",
    "blob as text": BLOB + "def f(b: str): ...\n",
    "blob as bytes": BLOB + "def f(b: bytes): ...\n",
    "timer": TIMER + "def f(t: func.TimerRequest) -> None: ...\n",
    "timer as text": TIMER + "def f(t: str): ...\n",
    "timer with a missing setting": APP
    + "@app.timer_trigger(arg_name='t', schedule='%NO_SUCH%')\ndef f(t: func.TimerRequest): ...\n",
    "output text": SB_OUT + REQ + ", o: func.Out[str]) -> str: ...\n",
    "output bytes": SB_OUT + REQ + ", o: func.Out[bytes]) -> str: ...\n",
    "output without an annotation": SB_OUT + REQ + ", o) -> str: ...\n",
    "queue outputs": QUEUE_OUT + REQ + ", o: func.Out[typing.List[str]]) -> str: ...\n",
    "queue message output": QUEUE_OUT + REQ + ", o: func.Out[func.QueueMessage]) -> str: ...\n",
    "blob output": BLOB_OUT + REQ + ", o: func.Out[bytes]) -> str: ...\n",
    "message that returns an output": SB
    + "@app.service_bus_queue_output(arg_name='$return', queue_name='q', connection='C')\n"
    + "def f(m: func.ServiceBusMessage) -> str: ...\n",
    "blueprint": IMPORTS
    + "bp = func.Blueprint()\n@bp.route(route='x')\n"
    + REQ
    + ") -> str: ...\napp = func.FunctionApp()\napp.register_functions(bp)\n",
}
REFUSED = {
    "http to nothing": HTTP + REQ + ") -> None: ...\n",
    "http that returns a dict": HTTP + REQ + ") -> dict: ...\n",
    "http that returns bytes": HTTP + REQ + ") -> bytes: ...\n",
    "http that may return nothing": HTTP + REQ + ") -> typing.Optional[func.HttpResponse]: ...\n",
    "http that returns an Out": HTTP + REQ + ") -> func.Out[str]: ...\n",
    "http request of another type": HTTP + "def f(req: dict) -> str: ...\n",
    "parameter without a binding": HTTP + REQ + ", more: int = 1) -> str: ...\n",
    "binding without a parameter": HTTP + "def f() -> str: ...\n",
    "context of another type": HTTP + REQ + ", context: str) -> str: ...\n",
    "context under another name": HTTP + REQ + ", ctx: func.Context) -> str: ...\n",
    "annotation that cannot be resolved": HTTP + "def f(req: 'NoSuchType') -> str: ...\n",
    "message of another type": SB + "def f(m: func.TimerRequest): ...\n",
    "message as a dict": SB + "def f(m: dict): ...\n",
    "message as one of two": SB + "def f(m: typing.Union[str, bytes]): ...\n",
    "messages in a list of today": MANY + "def f(m: list[func.ServiceBusMessage]): ...\n",
    "messages of another type": MANY + "def f(m: typing.List[int]): ...\n",
    "messages as texts": MANY + "def f(m: typing.List[str]): ...\n",
    "blob of another type": BLOB + "def f(b: func.QueueMessage): ...\n",
    "timer of another type": TIMER + "def f(t: func.HttpRequest): ...\n",
    "output without Out": SB_OUT + REQ + ", o: str) -> str: ...\n",
    "output of a bare Out": SB_OUT + REQ + ", o: func.Out) -> str: ...\n",
    "output of another type": SB_OUT + REQ + ", o: func.Out[dict]) -> str: ...\n",
    "outputs of Service Bus": SB_OUT + REQ + ", o: func.Out[typing.List[str]]) -> str: ...\n",
    "input as an Out": SB + "def f(m: func.Out[str]): ...\n",
    "message that returns a dict as an output": SB
    + "@app.service_bus_queue_output(arg_name='$return', queue_name='q', connection='C')\n"
    + "def f(m: func.ServiceBusMessage) -> dict: ...\n",
    "no app": IMPORTS,
    "two apps": APP + "other = func.FunctionApp()\n",
    "one app under two names": APP + "other = app\n",
    "two functions of one name": HTTP + REQ + ") -> str: ...\n@app.route(route='y')\n" + REQ + ") -> str: ...\n",
    "an import that fails": APP + "import no_such_package\n",
}
