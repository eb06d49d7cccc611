"""What an app of CoreMachine imports when it first runs, for processes that import it ahead of time."""

# In steps of less than half a second: a process that is wanted meanwhile leaves the rest for later.
MODULES = (
    "triggers.functions",
    "core.machine",
    "triggers.timers",
    "infrastructure.settings",
    "infrastructure.factory",
    "jobs.outside",
    "jobs.loading",
    "triggers.queues",
    "triggers.dead_letters",
    "triggers.presence",
    "fastapi",
    "triggers.submit_api",
    "triggers.http",
    "azure.servicebus.exceptions",
)

# Loads the jobs and makes what triggers use: the work of a process's first message.
WARM_UP = "triggers.services:get_services"
