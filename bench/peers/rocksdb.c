/* SPDX-License-Identifier: MIT
 *
 * RocksDB: a WriteBatch for each append, written with sync.
 */
#include "store.h"

#include <endian.h>
#include <rocksdb/c.h>
#include <stdlib.h>

struct rocks {
	rocksdb_t *db;
	rocksdb_options_t *options;
	rocksdb_writeoptions_t *synced;
	rocksdb_readoptions_t *plain;
	size_t bytes;
	uint64_t next;
};

static int failed(char *error)
{
	store_error(error);
	rocksdb_free(error);
	return -1;
}

static void close_store(void *store)
{
	struct rocks *r = store;

	if (r->db)
		rocksdb_close(r->db);
	rocksdb_options_destroy(r->options);
	rocksdb_writeoptions_destroy(r->synced);
	rocksdb_readoptions_destroy(r->plain);
	free(r);
}

static void *open_store(const char *dir, size_t bytes)
{
	struct rocks *r = calloc(1, sizeof(*r));
	char *error = NULL;

	if (!r)
		return NULL;
	r->bytes = bytes;
	r->options = rocksdb_options_create();
	r->synced = rocksdb_writeoptions_create();
	r->plain = rocksdb_readoptions_create();
	rocksdb_options_set_create_if_missing(r->options, 1);
	rocksdb_writeoptions_set_sync(r->synced, 1);
	r->db = rocksdb_open(r->options, dir, &error);
	if (!error)
		return r;
	failed(error);
	close_store(r);
	return NULL;
}

static int append(void *store, const char *records, unsigned n)
{
	struct rocks *r = store;
	rocksdb_writebatch_t *batch = rocksdb_writebatch_create();
	char *error = NULL;
	unsigned i;

	for (i = 0; i < n; i++) {
		uint64_t key = htobe64(r->next++); /* they are in the order of bytes */

		rocksdb_writebatch_put(batch, (const char *)&key, sizeof(key),
				       records + i * r->bytes, r->bytes);
	}
	rocksdb_write(r->db, r->synced, batch, &error);
	rocksdb_writebatch_destroy(batch);
	return error ? failed(error) : 0;
}

static int read_all(void *store, int (*call)(void *arg, const void *record, size_t bytes),
		    void *arg)
{
	struct rocks *r = store;
	rocksdb_iterator_t *at = rocksdb_create_iterator(r->db, r->plain);
	char *error = NULL;

	for (rocksdb_iter_seek_to_first(at); rocksdb_iter_valid(at); rocksdb_iter_next(at)) {
		size_t bytes;
		const char *record = rocksdb_iter_value(at, &bytes);

		if (call(arg, record, bytes))
			break;
	}
	rocksdb_iter_get_error(at, &error);
	rocksdb_iter_destroy(at);
	return error ? failed(error) : 0;
}

static const char *version(void)
{
	return ROCKSDB_VERSION; /* of the Makefile: its own header is C++ */
}

const struct store bench_store = { .name = "rocksdb",
				   .version = version,
				   .open = open_store,
				   .append = append,
				   .read = read_all,
				   .close = close_store };
