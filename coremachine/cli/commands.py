"""All commands: where each is, and its line in `coremachine --help`."""

# The groups of the help, each with its commands in their order. A test compares the lines with the commands' own help.
GROUPS = {
    "Your project": {
        "init": (
            "scaffold:init",
            "Write a project of your own: a function app, a package with one job, and a test of it.",
        ),
        "new": ("scaffold:new", "Add something to a project."),
        "up": (
            "up:up",
            "Start PostgreSQL, the Service Bus broker and the Functions host here; Ctrl-C ends them all.",
        ),
        "ui": ("ui:ui", "Open the dashboard in a browser, and print its address."),
        "demo": (
            "demo:demo",
            (
                "Run a real job from end to end: flood depth rasters to Cloud Optimized GeoTIFFs, with catalog and "
                "summary."
            ),
        ),
    },
    "Jobs": {
        "job-types": (
            "jobs:job_types",
            (
                "List what can be submitted, with the parameters of each: their types and defaults, and which are "
                "required."
            ),
        ),
        "submit": (
            "jobs:submit",
            (
                "Submit a job, or with --from-jsonl many. The same parameters are the same job: submitting twice runs "
                "it once."
            ),
        ),
        "watch": (
            "jobs:watch",
            "Watch a job to its end: a bar for each stage with its pace, failures as they come, and why it waits.",
        ),
        "list": ("jobs:list_jobs", "List jobs, the newest first. What several options ask for counts together."),
        "status": ("jobs:status", "Show one job and its stages."),
        "result": (
            "jobs:result",
            "Show a job's result whole. Exit code 4 if the job has none yet, 1 if it ended without one.",
        ),
        "tasks": ("jobs:tasks", "List the tasks of a job."),
        "task": (
            "tasks:task",
            (
                "Show one task whole: parameters, result, times, lease, each attempt, and the last one's log lines and "
                "traceback."
            ),
        ),
        "runs": ("control:runs", "List a job's runs, the latest first: each with its parameters and how it ended."),
        "verify": ("proof:verify", "Look whether each output is still what was verified, and show what that was."),
        "cancel": (
            "control:cancel",
            "Cancel a job; tasks that run are asked to stop. Exit code 4 if it has ended already.",
        ),
        "pause": (
            "control:pause",
            "Begin no more of a job's tasks; those that run end as they would. Exit code 4 if it has ended already.",
        ),
        "resume": ("control:resume", "Let a paused job go on."),
        "adjust": (
            "control:adjust",
            "Change how fast a job goes on, while it runs. Exit code 4 if it has ended, or no task waits in line.",
        ),
        "rerun": (
            "control:rerun",
            "Run a job that has ended once more, under the same id. Exit code 4 if it has not ended.",
        ),
    },
    "What went wrong": {
        "explain": (
            "insight:explain",
            (
                "Say why a job does not move, and what would help; without a job, what does not move or failed within "
                "a day."
            ),
        ),
        "failures": (
            "insight:failures",
            "Show failed tasks, grouped by what went wrong; with a fingerprint, the tasks of that group.",
        ),
        "logs": ("tasks:logs", "Show what was logged about a job, by the engine and by its handlers."),
        "events": (
            "tasks:events",
            "Show a job's timeline: transitions, failures, retries, interruptions, operator actions.",
        ),
        "run-task": (
            "run_task:run_task",
            "Run a task's handler again, in this process, with the parameters and earlier results that it had.",
        ),
    },
    "Many jobs": {
        "bulk": (
            "bulk:bulk",
            "Cancel, pause, resume, retry, rerun or delete many jobs: first counted, then confirmed.",
        ),
        "delete": (
            "bulk:delete",
            (
                "Delete a job that has ended, with its tasks and events. Exit code 4 if it has not ended, or is under "
                "a hold."
            ),
        ),
        "hold": ("bulk:hold", "Put a job under a legal hold: neither retention nor people delete it."),
        "release": ("bulk:release", "End a job's legal hold."),
        "audit": (
            "bulk:audit",
            "Show who did what to which job, and why, the latest first. It outlives the jobs.",
        ),
        "schedules": ("schedules:schedules", "Jobs that are submitted by the clock."),
        "limits": ("limits:limits", "Limits that stages share: how many tasks run at once, or begin in a time."),
    },
    "Operation": {
        "apps": (
            "apps:list_apps",
            "List the processes of all apps, with release and queues, and work that none of them can take.",
        ),
        "queues": (
            "apps:list_queues",
            "List the queues: what waits on each and since when, dead messages, and who reads it.",
        ),
        "dead": ("insight:dead", "Messages that their queue gave up: list them, send them again."),
        "webhooks": ("webhooks:webhooks", "Addresses that receive events."),
        "profiles": (
            "apps:list_profiles",
            "List the servers that have a name in your own file or in pyproject.toml, and how their keys are found.",
        ),
        "db": (
            "db_grant:db",
            "The database: bring its schema up to date, see which migrations it has, check its data, delete old jobs.",
        ),
    },
    "Single parts": {
        "serve": (
            "serve:serve",
            (
                "Serve one app with the project's own Functions host: HTTP, Service Bus triggers, timers. SIGTERM "
                "drains it."
            ),
        ),
        "servicebus": (
            "servicebus:servicebus",
            "Run a local Azure Service Bus alone, without Docker; Ctrl-C ends it.",
        ),
        "functions": ("functions:functions", "Run any Azure Functions app (Python, v2 model) on this machine."),
    },
}
