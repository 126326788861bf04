"""Jobs: training in a child process, bounded, watched, resumable; and the schedule that starts them."""
