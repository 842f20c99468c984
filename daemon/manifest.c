/* SPDX-License-Identifier: MIT */
#include "manifest.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "layout.h"
#include "log.h"

static const char *const kinds[] = {
	[LAY_SLAB_REGISTRY] = "registry", [LAY_SLAB_BELL] = "bell",   [LAY_SLAB_ENTRY] = "entry",
	[LAY_SLAB_RING] = "ring",         [LAY_SLAB_ARENA] = "arena",
};

static void write_slab(FILE *out, unsigned id, const struct link_slab *slab)
{
	struct stat st;

	if (slab->fd < 0 || slab->kind < LAY_SLAB_REGISTRY || slab->kind > LAY_SLAB_ARENA ||
	    fstat(slab->fd, &st))
		return;
	fprintf(out, "slab %u %s page %u dev %" PRIu64 " ino %" PRIu64 " bytes %" PRIu64 "%s\n", id,
		kinds[slab->kind], 1u << slab->page_shift, (uint64_t)st.st_dev, (uint64_t)st.st_ino,
		slab->bytes, slab->extra ? " extra" : "");
}

int manifest_write(const struct files *f, const char *bus, uint64_t nonce,
		   const struct link_slab *slab)
{
	int fd, error = 0;
	unsigned i;
	FILE *out;

	/* Process ids come again: a predecessor may have died right here. */
	unlink(f->scratch);
	fd = open(f->scratch, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return -errno;
	out = fdopen(fd, "w");
	if (!out) {
		error = -errno;
		close(fd);
		goto out;
	}
	fprintf(out, "shmq manifest 1\nbus %s\nnonce %016" PRIx64 "\n", bus, nonce);
	for (i = 0; i < LINK_SLABS_MAX; i++)
		write_slab(out, i, &slab[i]);
	if (fclose(out) || rename(f->scratch, f->manifest))
		error = -errno;
out:
	if (error)
		unlink(f->scratch);
	return error;
}

/* A start maps what it is offered by what is said of it here. */
static int is_possible(unsigned id, const struct link_slab *slab, unsigned page)
{
	if (page & (page - 1) || slab->page_shift < 12 || slab->page_shift > 30)
		return 0;
	if (slab->kind == LAY_SLAB_REGISTRY || !id)
		return slab->kind == LAY_SLAB_REGISTRY && !id && slab->bytes == LAY_REGISTRY_BYTES;
	return slab->bytes <= LAY_BULK_SLAB_BYTES;
}

static int read_slab(const char *line, struct manifest *m)
{
	char kind[16] = "", extra[8] = "";
	unsigned id, page, k;
	uint64_t dev, ino, bytes;

	if (sscanf(line,
		   "slab %u %15s page %u dev %" SCNu64 " ino %" SCNu64 " bytes %" SCNu64 " %7s",
		   &id, kind, &page, &dev, &ino, &bytes, extra) < 6 ||
	    id >= LINK_SLABS_MAX || !page || (*extra && strcmp(extra, "extra") != 0))
		return -EPROTO;
	for (k = LAY_SLAB_REGISTRY; k <= LAY_SLAB_ARENA; k++)
		if (!strcmp(kind, kinds[k]))
			break;
	if (k > LAY_SLAB_ARENA)
		return -EPROTO;
	m->slab[id].is = (struct link_slab){ .fd = -1,
					     .kind = k,
					     .page_shift = (uint16_t)__builtin_ctz(page),
					     .extra = *extra != 0,
					     .bytes = bytes };
	if (!is_possible(id, &m->slab[id].is, page))
		return -EPROTO;
	m->slab[id].dev = dev;
	m->slab[id].ino = ino;
	return 0;
}

int manifest_read(const struct files *f, struct manifest *m)
{
	int fd = open(f->manifest, O_RDONLY | O_CLOEXEC | O_NOFOLLOW), error = 0;
	FILE *in = fd < 0 ? NULL : fdopen(fd, "r");
	char line[256];
	unsigned i;

	memset(m, 0, sizeof(*m));
	for (i = 0; i < LINK_SLABS_MAX; i++)
		m->slab[i].is.fd = -1;
	if (!in)
		return -ENOENT;
	if (!fgets(line, sizeof(line), in) || strcmp(line, "shmq manifest 1\n") != 0)
		error = -EPROTO;
	while (!error && fgets(line, sizeof(line), in)) {
		if (!strncmp(line, "slab ", 5))
			error = read_slab(line, m);
		else
			sscanf(line, "nonce %" SCNx64, &m->nonce);
	}
	fclose(in);
	return error;
}

void manifest_mourn(const struct files *f)
{
	FILE *in = fopen(f->manifest, "re");
	char line[256];

	if (!in)
		return;
	log_warn("the bus's last supervisor ended without a survivor; this start begins it anew, "
		 "and its clients have to open it again");
	while (fgets(line, sizeof(line), in)) {
		line[strcspn(line, "\n")] = 0;
		if (!strncmp(line, "slab ", 5) || !strncmp(line, "nonce ", 6))
			log_warn("lost: %s", line);
	}
	fclose(in);
	unlink(f->manifest);
}
