# SPDX-License-Identifier: GPL-2.0
"""Runs the module's KUnit tests in a guest and counts what they say; see run."""
