"""The app that runs where there is no project: the job types that come with CoreMachine. A Function App's folder."""
