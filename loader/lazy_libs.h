/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Libraries loaded when they are first needed. libarchive, libcrypto and zlib bring twenty more
 * with them, whose loading and relocation takes longer than a sandbox does to start; a start from a
 * cached image never calls them. lazy_libs_stubs.S defines every function of lazy_libs.def as a
 * jump through a slot, so that callers use the libraries' own headers and know nothing of this.
 */
#ifndef LOADER_LAZY_LIBS_H
#define LOADER_LAZY_LIBS_H

/*
 * Loads the libraries and fills the slots, once; before this a call of one of the functions ends
 * the program. Returns NULL or a static string that tells what is missing. Not thread-safe.
 */
const char *lazy_libs_load(void);

#endif
