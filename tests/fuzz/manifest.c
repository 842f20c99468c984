/* SPDX-License-Identifier: MIT
 *
 * The manifest, which a start reads that finds one, whatever has become of it.
 */
#include "fuzz.h"

#include "layout.h"
#include "log.h"
#include "manifest.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

const unsigned fuzz_runs = 5000;

enum { STEPS = 1 << 20 };

static void put(const struct files *f, const uint8_t *data, size_t size)
{
	int fd = open(f->manifest, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	CHECK_GE(fd, 0);
	CHECK_EQ(write(fd, data, size), (ssize_t)size);
	close(fd);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct manifest m;
	struct files f;
	unsigned i;
	int rc;

	log_open("fuzz", LOG_ERROR);
	files_name(&f, test_tmpdir(), "fuzz");
	put(&f, data, size);
	rc = WITHIN(STEPS, manifest_read(&f, &m));
	CHECK(rc == 0 || rc == -EPROTO);
	for (i = 0; i < LINK_SLABS_MAX && !rc; i++) {
		const struct link_slab *slab = &m.slab[i].is;

		CHECK_EQ(slab->fd, -1);
		if (!slab->kind)
			continue;
		CHECK(slab->kind <= LAY_SLAB_ARENA && slab->page_shift >= 12 &&
		      slab->page_shift <= 30);
		CHECK_EQ(slab->kind == LAY_SLAB_REGISTRY, i == 0);
		CHECK_LE(slab->bytes, LAY_BULK_SLAB_BYTES);
		if (!i)
			CHECK_EQ(slab->bytes, LAY_REGISTRY_BYTES);
	}
	fuzz_begin("manifest_mourn()", STEPS);
	manifest_mourn(&f);
	fuzz_end();
	CHECK_LT(access(f.manifest, F_OK), 0);
	return 0;
}

void fuzz_leave(void)
{
}
