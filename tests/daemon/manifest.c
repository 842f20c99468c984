/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "layout.h"
#include "manifest.h"
#include "registry.h"
#include "tap.h"

/* Left by a parent that was killed while it wrote, and whose process id is
 * ours by now: in a container that is soon. */
TEST(a_manifest_is_written_where_another_was_begun)
{
	struct link_slab slab[LINK_SLABS_MAX];
	struct manifest m;
	struct files f;
	int fd;

	files_name(&f, test_tmpdir(), "unit");
	registry_slabs_wanted(0, slab);
	CHECK_GE(slab[0].fd = registry_make_slab(0, &slab[0]), 0);
	CHECK_GE(fd = open(f.scratch, O_WRONLY | O_CREAT | O_CLOEXEC, 0600), 0);
	CHECK_EQ(write(fd, "shmq", 4), 4);
	close(fd);
	CHECK_OK(manifest_write(&f, "unit", 0x1234, slab));
	CHECK_OK(manifest_read(&f, &m));
	CHECK_EQ(m.nonce, 0x1234);
	CHECK_EQ(m.slab[0].is.kind, LAY_SLAB_REGISTRY);
	CHECK_LT(access(f.scratch, F_OK), 0);
	close(slab[0].fd);
}

static int read_back(const struct files *f, const char *slab)
{
	FILE *out = fopen(f->manifest, "we");
	struct manifest m;

	CHECK(out);
	fprintf(out, "shmq manifest 1\nbus unit\nnonce 1234\nslab %s\n", slab);
	fclose(out);
	return manifest_read(f, &m);
}

/* What a start is offered it maps by these numbers. */
TEST(a_slab_that_cannot_be_is_refused)
{
	static const char *const slabs[] = {
		"0 registry page 4096 dev 1 ino 2 bytes 4096",
		"0 ring page 4096 dev 1 ino 2 bytes 68719476736",
		"1 registry page 4096 dev 1 ino 2 bytes 68719476736",
		"1 bell page 4097 dev 1 ino 2 bytes 4294967296",
		"1 bell page 12288 dev 1 ino 2 bytes 4294967296",
		"1 bell page 2048 dev 1 ino 2 bytes 4294967296",
		"1 bell page 2147483648 dev 1 ino 2 bytes 4294967296",
		"3 ring page 4096 dev 1 ino 2 bytes 18446744073709551615",
		"512 ring page 4096 dev 1 ino 2 bytes 4096",
		"9 ring page 4096 dev 1 ino 2 bytes 4096 more",
		"3 rings page 4096 dev 1 ino 2 bytes 4096",
	};
	struct files f;

	files_name(&f, test_tmpdir(), "unit");
	CHECK_OK(read_back(&f, "0 registry page 4096 dev 1 ino 2 bytes 68719476736"));
	CHECK_OK(read_back(&f, "3 ring page 2097152 dev 1 ino 2 bytes 70368744177664"));
	CHECK_OK(read_back(&f, "9 ring page 4096 dev 1 ino 2 bytes 70368744177664 extra"));
	for (size_t i = 0; i < sizeof(slabs) / sizeof(slabs[0]); i++)
		CHECK_EQ(read_back(&f, slabs[i]), -EPROTO);
}
