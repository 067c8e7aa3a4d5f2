"""Real processes: started workers and masters, and what their requests cost."""
