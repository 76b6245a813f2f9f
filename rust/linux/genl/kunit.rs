// SPDX-License-Identifier: GPL-2.0

//! Tests with a real family and a real netlink socket.
