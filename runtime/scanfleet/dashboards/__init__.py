"""Draws CloudWatch dashboards as pictures, from AWS's CloudWatch or the emulator's."""
