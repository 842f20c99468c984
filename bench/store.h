/* SPDX-License-Identifier: MIT
 *
 * store: something else that keeps records on disk, measured beside the log
 * of a topic in the same rounds.
 *
 * As with the other peers each is a file bench/peers/<name>.c, built as a
 * shared object of its own; it defines the object `bench_store`.  One process
 * opens it, appends, reads and closes it.  Records are of one size and are
 * numbered from 0; appended is on the disk, so that it survives a loss of
 * power, as its own documentation says that it is had.
 */
#ifndef BENCH_STORE_H
#define BENCH_STORE_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

struct store {
	const char *name;             /* as in the figures: "lmdb" */
	const char *(*version)(void); /* "0.9.24" */
	/* In an empty directory; NULL, or -1 below, after a line on stderr. */
	void *(*open)(const char *dir, size_t bytes);
	/* n records, one behind the other, in one go. */
	int (*append)(void *store, const char *records, unsigned n);
	/* Call with each record, in order, until it returns other than 0. */
	int (*read)(void *store, int (*call)(void *arg, const void *record, size_t bytes),
		    void *arg);
	void (*close)(void *store);
};

__attribute__((visibility("default"))) extern const struct store bench_store;

/* In a plugin: a line on stderr; -1. */
static inline int store_error(const char *what)
{
	dprintf(2, "%s: %s\n", bench_store.name, what);
	return -1;
}

#endif
