"""Functions that fork or break their process, one that keeps the interpreter, and one whose text cannot be sent."""

import builtins
import ctypes
import json
import os
import resource
import sys

import azure.functions as func

app = func.FunctionApp(http_auth_level=func.AuthLevel.ANONYMOUS)


@app.route(route="pid", methods=["GET"])
def pid(req: func.HttpRequest) -> str:
    return str(os.getpid())


@app.route(route="block", methods=["POST"])
def block(req: func.HttpRequest) -> str:
    """Until somebody opens the pipe that is the body. PyDLL, unlike CDLL, keeps the GIL while it calls."""
    os.close(ctypes.PyDLL(None).open(req.get_body(), os.O_RDONLY))
    return str(os.getpid())


@app.route(route="half-a-pair", methods=["POST"])
def half_a_pair(req: func.HttpRequest) -> str:
    return "\ud800"


@app.route(route="break/{way}", methods=["POST"])
def break_process(req: func.HttpRequest) -> str:
    """For all that runs in it."""
    match req.route_params["way"]:
        case "len":
            builtins.len = lambda _value: 0
        case "json":
            json.dumps = None
        case "descriptors":
            _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
            resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
        case "audit":
            sys.addaudithook(refuse_files)
    return ""


def refuse_files(event: str, _arguments: object) -> None:
    if event == "open":
        raise RuntimeError("no file may be opened")


@app.route(route="fork/{way}", methods=["POST"])
def fork(req: func.HttpRequest) -> str:
    return fork_as_told(req.route_params["way"])


@app.route(route="fork-async/{way}", methods=["POST"])
async def fork_async(req: func.HttpRequest) -> str:
    return fork_as_told(req.route_params["way"])


def fork_as_told(way: str) -> str:
    """How the child ended, which leaves as it was told to; it must not answer the request."""
    child = os.fork()
    if child == 0:
        if way == "exit":
            sys.exit(3)
        if way == "raise":
            raise ValueError("of a child")
        return "the child's answer"
    return str(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
