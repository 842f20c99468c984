/* SPDX-License-Identifier: MIT
 *
 * config: what shmqd.conf(5) says.
 *
 * A file is taken whole or not at all.  What a bus runs by is a copy of it in
 * the runtime directory (files.h), put there by one rename: every worker that
 * starts reads that, so whoever dies meanwhile, all of them go by the old file
 * or all by the new one.
 */
#ifndef SHMQ_CONFIG_H
#define SHMQ_CONFIG_H

#include <stddef.h>
#include <stdint.h>

#include "access.h"
#include "log.h"
#include "proto.h"
#include "shmq.h"

/* One setting as it is written.  Of the file itself the section is "". */
struct config_item {
	char *section, *title, *key, *value;
};

struct config_topic {
	char *name;
	struct shmq_topic_options options; /* zero: not said */
};

/* Of one uid; UINT64_MAX is no limit. */
struct config_limits {
	uint64_t topics, bytes, clients, descriptors, requesters;
};
struct config_limit {
	char *title; /* as written */
	uint32_t uid;
	int is_everyone, is_checked;
	struct config_limits limits;
};

struct config {
	char *text; /* of the file */
	size_t text_bytes;
	int level; /* enum log_level + 1; here and below 0 or NULL: not said */
	int64_t linger_ns;
	uint64_t guests;
	char *data_dir, *log_dirs, *log;
	char **allow; /* rules, each checked */
	unsigned allow_count;
	struct shmq_topic_options defaults;
	struct config_topic *topic;
	unsigned topic_count;
	struct config_limit *limit;
	unsigned limit_count;
	struct config_item *item; /* in the order of the file; and by name */
	struct config_item **sorted;
	unsigned item_count;
};

/* Where it is if nobody says: /etc/shmq/<bus>.conf of a bus in /run/shmq, else
 * $XDG_CONFIG_HOME/shmq/<bus>.conf or ~/.config/shmq/<bus>.conf.  0, or
 * -ENAMETOOLONG. */
int config_find(const char *dir, const char *bus, char *path, size_t bytes);

/* Each mistake as "FILE:LINE:COLUMN: what and what to do". */
typedef void (*config_say)(void *arg, const char *text);

/* Whose a file may be: one that was found by what the environment says is taken only
 * if nobody but who runs this process, or root, can have written it. */
enum config_whose { CONFIG_ANYBODYS, CONFIG_OWN };

/* Read and check it all.  0 (*out is the caller's to free), SHMQ_EOPTION with
 * every mistake said that could be found, a hundred at most, -errno if it cannot be read. */
int config_read(const char *path, enum config_whose whose, struct config **out, config_say say,
		void *arg);
/* The same of text that is not from a file; `name` stands for its path. */
int config_parse(const char *name, const char *text, size_t bytes, struct config **out,
		 config_say say, void *arg);
void config_free(struct config *config);

/* Put the copy of it in force, or remove it (NULL); it is written as `scratch` first, a
 * name of this process's own.  Its last line names the file `from`, which it is a copy
 * of.  0 or -errno: then the one before is. */
int config_put(const struct config *config, const char *path, const char *scratch,
	       const char *from);
/* That name, "" if there is none. */
void config_put_from(const char *path, char *from, size_t bytes);

/* What differs between two, either of which may be NULL: from which value to which,
 * NULL where the setting is not there.  Returns how many. */
typedef void (*config_change)(void *arg, const struct config_item *item, const char *from,
			      const char *to);
unsigned config_compare(const struct config *from, const struct config *to, config_change change,
			void *arg);
/* Whether a change of it has to wait for the next start of the bus. */
int config_is_for_start(const struct config_item *item);

/* What its creator left open.  config may be NULL. */
void config_fill_defaults(const struct config *config, struct proto_options *options);
/* ... and then where its log is to be, if it has one. */
void config_fill_log_dir(const struct config *config, const struct proto_options *options,
			 char log_dir[PROTO_LOG_DIR_BYTES]);
/* Of that uid: what is said of it, else of everyone, from which the owner and root
 * are free. */
struct config_limits config_limits_of(const struct config *config, const struct access_caller *who);

#endif
