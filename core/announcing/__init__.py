"""Messages for rows that wait for one: the next tasks of windows and limits, and what has to be sent again."""
