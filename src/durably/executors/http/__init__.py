"""Durable HTTP at work: the built-in activity behind `call_http`, and the policy that each of its requests is subject to."""
