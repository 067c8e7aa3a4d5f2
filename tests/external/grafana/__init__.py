"""Tests with Grafana's models of dashboards: ``make external ARGS=grafana``."""
