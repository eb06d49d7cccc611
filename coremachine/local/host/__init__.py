"""A local host for Azure Functions apps (Python, v2 programming model).

It reads the functions that `function_app.py` registers through the public `azure.functions` API, and `host.json`;
serves HTTP, pumps Service Bus queues through the real SDK and fires timers, in N worker processes under a supervisor.
Each module's docstring names what it does differently from the real host.
"""
