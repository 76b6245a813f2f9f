# SPDX-License-Identifier: GPL-2.0
"""make bench: dm-replicate beside raw disk, NVMe/TCP and DRBD, in the same guests, in the same minutes.
Modules: peers (what is measured and how it is set up), measure (fio, rounds), profile (where the time goes), report (medians, ratios,
results.json)."""
