# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# Kernel trees in the cache: one unpacked source, and any number of build folders (O=) on it.
# Sourced by prepare-kdir and kunit-kernel, after lib.sh.

# unpack_source TARBALL: prints the folder of the unpacked source.
unpack_source() {
	local tarball=$1 src tmp
	[ -r "$tarball" ] || die "no kernel source at $tarball."
	src=$cache/linux-$(key "$tarball $(stat -Lc '%s %Y' "$tarball")")
	if [ ! -d "$src" ]; then
		need_space 5000 "an unpacked kernel source with a build folder"
		say "unpacking ${tarball##*/} (usually 30 s)"
		tmp=$src.part
		rm -rf "$tmp" && mkdir -p "$tmp"
		# Most of the tarball is not needed to configure the kernel and build what we build.
		tar -C "$tmp" --strip-components=1 --exclude='*/drivers/gpu/drm/*/*.[ch]' \
			--exclude='*/drivers/net/ethernet/*.[ch]' --exclude='*/drivers/net/wireless/*.[ch]' \
			--exclude='*/drivers/media/*.[ch]' --exclude='*/sound/*.[ch]' \
			--exclude='*/arch/arm*/boot/dts/*.dts*' --exclude='*/tools/testing/selftests' \
			-xf "$tarball" || die "unpacking $tarball failed"
		mv "$tmp" "$src"
	fi
	echo "$src"
}

# rust_ok SOURCE: dies with the kernel's own reason when its Rust toolchain is not usable.
rust_ok() {
	local out
	out=$(cd "$1" && make -s rustavailable 2>&1) || die "the kernel cannot be built with the Rust tools here:" \
		"$out" "Debian has them: apt-get install rustc rust-src bindgen libclang-dev"
}
