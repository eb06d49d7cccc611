"""Moves a job from stage to stage: submission, planning, the next step, the end."""
