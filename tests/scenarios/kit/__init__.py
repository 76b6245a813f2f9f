# SPDX-License-Identifier: GPL-2.0
"""What scenarios share. Rooms: host (a host of a group), pair (hosts joined by links), load (stamped
writers), oracle (the verdict), judge (the third host, where copies of disks are taken over), files
(real files on a filesystem), stranger (somebody who talks to the port without being a peer)."""
