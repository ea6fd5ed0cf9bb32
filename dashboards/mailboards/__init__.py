"""What is watched: Grafana dashboards, Prometheus' rules and alerts, generated from the service's metric names.

Never shipped with the service. ``make dashboards`` writes the files that are committed; a unit test compares them.
"""
