"""The whole program: configurations, a served application with its records, recorded answers."""
