/* SPDX-License-Identifier: MIT
 *
 * The order: read and check it all, put it in force by a rename, then go by it.
 * A worker that dies before the rename leaves the old one whole, and one that
 * dies after it has a successor that starts by the new one.
 */
#include "control.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

struct told {
	char *text; /* may be NULL */
	size_t bytes, used;
};

/* The setting's whole name: topic "md.trades": depth. */
static void name_item(const struct config_item *item, char *out, size_t bytes)
{
	if (!*item->section)
		snprintf(out, bytes, "%s", item->key);
	else if (!*item->title)
		snprintf(out, bytes, "%s: %s", item->section, item->key);
	else
		snprintf(out, bytes, "%s \"%s\": %s", item->section, item->title, item->key);
}

static const char *effect(const struct config_item *item)
{
	if (config_is_for_start(item))
		return " (when the bus is started next)";
	if (!strcmp(item->section, "topic"))
		return " (a topic that is there stays as it is)";
	return "";
}

static void tell(void *arg, const struct config_item *item, const char *from, const char *to)
{
	struct told *told = arg;
	char name[SHMQ_NAME_MAX + 64], line[1024];
	size_t n;

	name_item(item, name, sizeof(name));
	snprintf(line, sizeof(line), "%s: %.200s -> %.200s%s", name, from ? from : "not set",
		 to ? to : "not set", effect(item));
	log_info("configuration: %s", line);
	n = strlen(line);
	/* Whole lines, and a mark where more would follow. */
	if (told->text && told->used + n + 6 < told->bytes)
		told->used += (size_t)sprintf(told->text + told->used, "%s\n", line);
	else if (told->text && told->used && told->used + 4 < told->bytes) {
		sprintf(told->text + told->used, "...");
		told->text = NULL;
	}
}

struct mistakes {
	struct shmq__why *why;
	unsigned count;
};

static void say(void *arg, const char *text)
{
	struct mistakes *mistakes = arg;

	log_error("%s", text);
	if (!mistakes->count++)
		shmq__fail(mistakes->why, SHMQ_EOPTION, "%s", text);
}

/* As the bus was started, whatever the rules have been since. */
static int takes_guests(const struct control *c)
{
	unsigned i, entries = 0;

	for (i = 0; i < LINK_SLABS_MAX; i++)
		entries += c->slab[i].fd >= 0 && c->slab[i].kind == LAY_SLAB_ENTRY;
	return entries > 1; /* one is the owner's */
}

/* Which need what only a start makes: sockets and memory for other uids. */
static int check_guests(const struct control *c, const struct config *config, struct shmq__why *why)
{
	if (!config || !config->allow_count || takes_guests(c))
		return 0;
	return shmq__fail(why, SHMQ_EOPTION,
			  "this bus was started without rules, for its owner alone: the first ones "
			  "take effect when it is started anew");
}

static int read_config(const struct control *c, struct config **out, struct shmq__why *why)
{
	struct mistakes mistakes = { why, 0 };
	const char *path = c->o->config_path;
	int error;

	*out = NULL;
	if (!*path)
		return shmq__fail(why, SHMQ_EOPTION,
				  "this bus has no configuration (shmqd --config none)");
	error = config_read(path, c->o->config_whose, out, say, &mistakes);
	if (error == -ENOENT && !c->o->config_is_named)
		return 0; /* nothing is said then */
	if (error && error != SHMQ_EOPTION)
		return shmq__fail(
			why, SHMQ_EOPTION,
			"reading %s: %s: put a file there, readable for uid %u, and reload "
			"again",
			path, strerror(-error), (unsigned)geteuid());
	return error;
}

/* Both stay valid until they are compared. */
static int take(struct control *c, struct config *config, struct told *told, struct shmq__why *why)
{
	struct config *before = c->o->config;
	unsigned guests = c->o->guests, changes;
	int error;

	if (files_are_anothers(c->lock_fd, c->files.control))
		return shmq__fail(why, SHMQ_EINUSE,
				  "the files in %s are another bus's, which began when they were "
				  "removed: stop this one (pid %d)",
				  c->o->dir, (int)getppid());
	error = config_put(config, c->files.conf, c->files.scratch, c->o->config_path);
	if (error)
		return shmq__fail(why, SHMQ_ELIMIT, "writing %s: %s", c->files.conf,
				  strerror(-error));
	changes = config_compare(before, config, tell, told);
	error = options_apply(c->o, config);
	if (error) {
		config_put(before, c->files.conf, c->files.scratch, c->o->config_path);
		return shmq__fail(why, -ENOMEM, "no memory for the rules");
	}
	/* As they were when the bus was started. */
	c->o->guests = guests;
	log_open("control", c->o->level);
	return (int)changes;
}

/* How many settings changed, or an error: then none did. */
static int reload(struct control *c, const char *by, struct told *told, struct shmq__why *why)
{
	struct config *config;
	int rc = read_config(c, &config, why);

	if (!rc)
		rc = check_guests(c, config, why);
	if (!rc)
		rc = take(c, config, told, why);
	if (rc < 0) {
		if (config != c->o->config)
			config_free(config);
		log_error("configuration not taken (asked by %s), the bus goes on as it was: %s",
			  by, why->text);
		return rc;
	}
	log_info("configuration taken anew (asked by %s): %d settings changed", by, rc);
	create_configured(c);
	control_maybe_idle(c);
	return rc;
}

void reload_asked(struct control *c, uint32_t which)
{
	struct link_msg done = { .kind = LINK_RELOADED, .slab = which };

	reload(c, "SIGHUP", &(struct told){ NULL }, &(struct shmq__why){ "" });
	link_send(c->link.fd, &done, -1);
}

int reload_request(struct exchange *x)
{
	struct told told = { x->reply.reload.text, sizeof(x->reply.reload.text), 0 };
	int rc;

	if (control_may(x->c, x->conn, "#", ACCESS_ADMIN, &x->why))
		return SHMQ_EACCESS;
	rc = reload(x->c, conn_peer_text(x->conn->peer), &told, &x->why);
	if (rc < 0)
		return rc;
	x->reply.reload.changes = (uint32_t)rc;
	link_say(x->c->link.fd, LINK_RELOADED);
	return 0;
}
