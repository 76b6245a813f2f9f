# SPDX-License-Identifier: GPL-2.0
"""What scenarios share. Modules: host (a host of a group), pair (hosts joined by links), load (stamped
writers), oracle (the verdict), checker (the third host, where copies of disks are taken over), kills (their
number, seeds and images), alone and campaign (kill after kill, of one host and of several), files (real
files on a filesystem), tutorial (the commands that the documentation shows), rawclient (an unauthenticated
client of the port)."""
