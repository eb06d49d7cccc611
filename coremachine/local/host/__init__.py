"""A local host for Azure Functions apps (Python, v2 programming model).

It reads the functions that `function_app.py` registers through the public `azure.functions` API, and `host.json`;
serves HTTP, pumps Service Bus queues through the real SDK and fires timers, in N worker processes under a supervisor.
What it does differently from the real host stands in the docstring of the module concerned.
"""
