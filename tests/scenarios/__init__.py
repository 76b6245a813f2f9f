# SPDX-License-Identifier: GPL-2.0
"""What two hosts must do together; see lab.runner for the shape of a scenario."""
