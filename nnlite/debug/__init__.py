"""Checking and inspecting layers: gradcheck, trace and summary."""
