"""Durable schedules: when (`cron`, `zones`, `timing`), what (`spec`), and the built-in `entity` that makes it so."""
