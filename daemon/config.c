/* SPDX-License-Identifier: MIT
 *
 * The grammar is libconfuse's; what a value may be is what the command line's
 * tables say (cli/value.h).
 */
#include "config.h"

#include <confuse.h>
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pwd.h>
#include <search.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/value.h"
#include "layout.h"
#include "name.h"

#define CONFIG_BYTES_MAX (16u << 20)
#define MISTAKES_MAX 100u /* that are said: each is looked for in the text */
/* The parser takes the end of the file for that of all sections: what stands behind
 * the text has to be read as a setting of the file. */
#define END "_end"

/* ---- what there is --------------------------------------------------- */

static const struct opt_word levels[] = { { "error", LOG_ERROR + 1 },
					  { "warn", LOG_WARN + 1 },
					  { "info", LOG_INFO + 1 },
					  { "debug", LOG_DEBUG + 1 },
					  { NULL, 0 } };

static const struct opt bus_options[] = {
	{ "log-level", .kind = OPT_WORD, OPT_AT(struct config, level), .words = levels },
	{ "linger", .kind = OPT_DURATION, OPT_AT(struct config, linger_ns), .min = 1 },
	{ "guests", .kind = OPT_COUNT, OPT_AT(struct config, guests), .min = 1, .max = 256 },
	{ "data-dir", .kind = OPT_TEXT, OPT_AT(struct config, data_dir) },
	{ "log-dirs", .kind = OPT_TEXT, OPT_AT(struct config, log_dirs) },
	{ "log", .kind = OPT_TEXT, OPT_AT(struct config, log) },
};

static const struct opt limit_options[] = {
	{ "topics", .kind = OPT_COUNT, OPT_AT(struct config_limits, topics) },
	{ "bytes", .kind = OPT_SIZE, OPT_AT(struct config_limits, bytes) },
	{ "clients", .kind = OPT_COUNT, OPT_AT(struct config_limits, clients) },
	{ "descriptors", .kind = OPT_COUNT, OPT_AT(struct config_limits, descriptors) },
	{ "requesters", .kind = OPT_COUNT, OPT_AT(struct config_limits, requesters) },
};

static const struct config_limits no_limits = { UINT64_MAX, UINT64_MAX, UINT64_MAX, UINT64_MAX,
						UINT64_MAX };

int config_is_for_start(const struct config_item *item)
{
	return !*item->section && (!strcmp(item->key, "guests") || !strcmp(item->key, "data-dir") ||
				   !strcmp(item->key, "log-dirs") || !strcmp(item->key, "log"));
}

/* ---- reading --------------------------------------------------------- */

/* A name that no table has.  The parser ends at the first of them: the text is read
 * again with it as one more that may be there, so that all mistakes are told at once. */
struct unknown {
	char section[16], name[64];
	enum { VALUE, LIST, SECTION, TITLED } kind;
};

/* The parser under ours has state of its own: there is one at a time. */
static struct reader {
	const char *name;
	struct config *config;
	config_say say;
	void *arg;
	unsigned mistakes;
	char *told[MISTAKES_MAX]; /* each once, however often the text is read */
	struct unknown unknown[MISTAKES_MAX];
	unsigned unknown_count;
	int again;
	int error; /* no memory */
	/* From here on it is of one reading. */
	unsigned rules; /* of the list, checked so far */
	/* Which settings were said, by their places in the tables: of the file, of
	 * defaults, and of the section that is being read. */
	uint64_t said_here, said_bus, said_defaults;
	int is_begun;    /* that section has its place in the configuration */
	void *titles[2]; /* trees of those that were closed */
	char *first_rule;
} * reader;

static const char *line_at(int number)
{
	const char *line = reader->config->text;

	while (line && --number > 0) {
		line = strchr(line, '\n');
		if (line)
			line++;
	}
	return line;
}

/* Column of a word in a line, counted from 1; 1 if it is not there. */
static unsigned column_of(int number, const char *word)
{
	const char *line = line_at(number), *end = line ? strchrnul(line, '\n') : NULL, *at = line;
	size_t length = strlen(word);

	for (; line && length && at + length <= end; at++)
		if (!memcmp(at, word, length))
			return (unsigned)(at - line) + 1;
	return 1;
}

/* There is no use in reading on. */
static int is_full(void)
{
	return reader->error || reader->mistakes == MISTAKES_MAX;
}

static char *copy(const char *text)
{
	char *made = strdup(text);

	if (!made)
		reader->error = -ENOMEM;
	return made;
}

static void mistake(int line, unsigned column, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

static void mistake(int line, unsigned column, const char *format, ...)
{
	char text[1024], *at;
	unsigned i;
	int used;
	va_list ap;

	if (is_full())
		return;
	used = snprintf(text, sizeof(text), "%.400s:%d:%u: ", reader->name, line, column);
	va_start(ap, format);
	vsnprintf(text + used, sizeof(text) - (size_t)used, format, ap);
	va_end(ap);
	for (at = text; *at; at++) /* a terminal is to show it */
		if (iscntrl((unsigned char)*at))
			*at = '?';
	for (i = 0; i < reader->mistakes; i++)
		if (!strcmp(reader->told[i], text))
			return;
	reader->told[i] = copy(text);
	if (!reader->told[i])
		return;
	reader->mistakes++;
	if (reader->say)
		reader->say(reader->arg, text);
}

static int note_unknown(cfg_t *section, cfg_opt_t *opt);

static const char *nearest(const cfg_t *section, const char *name)
{
	const char *best = NULL;
	size_t i;

	for (i = 0; section->opts[i].name; i++)
		if (strcmp(section->opts[i].name, END) != 0 &&
		    section->opts[i].validcb != note_unknown)
			best = value_nearer(name, best, section->opts[i].name);
	return best;
}

static void tell_unknown(const cfg_t *section, const char *name)
{
	const char *near = nearest(section, name);
	int is_root = !strcmp(section->name, "root");

	mistake(section->line, column_of(section->line, name),
		"there is no setting \"%s\"%s%s%s%s%s", name, is_root ? "" : " in ",
		is_root ? "" : section->name, near ? ": is it \"" : ": see shmqd.conf(5)",
		near ? near : "", near ? "\"?" : "");
}

/* What follows it tells what the parser is to take it for. */
static int kind_of(int line, const char *name)
{
	const char *at = line_at(line), *end = at ? strchrnul(at, '\n') : NULL;
	size_t beyond = column_of(line, name) - 1 + strlen(name);

	if (!at || beyond > (size_t)(end - at))
		return VALUE; /* written otherwise than it is called */
	at += beyond;
	at += strspn(at, "\"' \t\r\n");
	if (*at == '{')
		return SECTION;
	if (*at != '=' && *at != '+')
		return TITLED;
	return *at == '+' || at[1 + strspn(at + 1, " \t\r\n")] == '{' ? LIST : VALUE;
}

static void add_unknown(const cfg_t *section, const char *name)
{
	struct unknown *u = reader->unknown;
	unsigned i;

	for (i = 0; i < reader->unknown_count; i++, u++)
		if (!strcmp(u->section, section->name) && !strcmp(u->name, name))
			return;
	if (i == MISTAKES_MAX)
		return;
	snprintf(u->section, sizeof(u->section), "%s", section->name);
	snprintf(u->name, sizeof(u->name), "%s", name);
	u->kind = kind_of(section->line, name);
	reader->unknown_count++;
	reader->again = 1;
}

/* One of those that were found before.  Of a list or section the first is told. */
static int note_unknown(cfg_t *section, cfg_opt_t *opt)
{
	if (opt->type == CFGT_SEC)
		cfg_opt_rmnsec(opt, cfg_opt_size(opt) - 1);
	else if (!(opt->flags & CFGF_LIST))
		tell_unknown(section, opt->name);
	return is_full() ? -1 : 0;
}

static void complain(cfg_t *section, const char *format, va_list ap)
{
	char text[512], name[sizeof(reader->unknown->name)];

	vsnprintf(text, sizeof(text), format, ap);
	if (sscanf(text, "no such option '%63[^']'", name) != 1) {
		mistake(section->line, 1, "%s", text);
	} else if (!strcmp(name, END)) {
		mistake(section->line - 1, 1, "the file ends within %s: a } is missing",
			section->name);
	} else if (!section->opts->name) {
		section->flags |= CFGF_IGNORE_UNKNOWN; /* that of the section is told */
	} else {
		tell_unknown(section, name);
		add_unknown(section, name);
	}
}

/* Room for one more than count: it is there unless that is 0 or a power of two. */
static void *grow(void *array, unsigned count, size_t bytes)
{
	void *more;

	if (count & (count - 1))
		return array;
	more = reallocarray(array, count ? 2 * (size_t)count : 1, bytes);
	if (!more)
		reader->error = -ENOMEM;
	return more;
}

static void add_item(const char *section, const char *title, const char *key, const char *value)
{
	struct config *c = reader->config;
	struct config_item *more = grow(c->item, c->item_count, sizeof(*more));

	if (!more)
		return;
	c->item = more;
	more[c->item_count++] =
		(struct config_item){ copy(section), copy(title), copy(key), copy(value) };
}

/* Whether that setting, of that place in its table, was said before. */
static int is_said(const char *section, size_t place)
{
	uint64_t *said = !*section                    ? &reader->said_bus :
			 !strcmp(section, "defaults") ? &reader->said_defaults :
							&reader->said_here;
	int was = *said >> place & 1;

	*said |= UINT64_C(1) << place;
	return was;
}

/* The one whose section is being read. */
static struct config_topic *topic_of(const char *name)
{
	struct config *c = reader->config;
	struct config_topic *more;

	if (reader->is_begun)
		return &c->topic[c->topic_count - 1];
	more = grow(c->topic, c->topic_count, sizeof(*more));
	if (!more)
		return NULL;
	c->topic = more;
	more += c->topic_count;
	*more = (struct config_topic){ .name = copy(name),
				       .options = { .size = sizeof(more->options) } };
	if (!more->name)
		return NULL;
	c->topic_count++;
	reader->is_begun = 1;
	return more;
}

static struct config_limit *limit_of(const char *title)
{
	struct config *c = reader->config;
	struct config_limit *more;

	if (reader->is_begun)
		return &c->limit[c->limit_count - 1];
	more = grow(c->limit, c->limit_count, sizeof(*more));
	if (!more)
		return NULL;
	c->limit = more;
	more += c->limit_count;
	*more = (struct config_limit){ .title = copy(title), .limits = no_limits };
	if (!more->title)
		return NULL;
	c->limit_count++;
	reader->is_begun = 1;
	return more;
}

/* Which table a section has, and what it fills. */
static const struct opt *find_option(const char *section, const char *title, const char *key,
				     void **into, size_t *place)
{
	const struct opt *table = bus_options;
	size_t count = ARRAY_COUNT(bus_options), i;
	struct config_topic *topic;
	struct config_limit *limit;

	*into = reader->config;
	if (!strcmp(section, "defaults")) {
		table = shape_options;
		count = shape_option_count;
		*into = &reader->config->defaults;
	} else if (!strcmp(section, "topic")) {
		table = shape_options;
		count = shape_option_count;
		topic = topic_of(title);
		*into = topic ? &topic->options : NULL;
	} else if (!strcmp(section, "limits")) {
		table = limit_options;
		count = ARRAY_COUNT(limit_options);
		limit = limit_of(title);
		*into = limit ? &limit->limits : NULL;
	}
	for (i = 0; i < count; i++)
		if (!strcmp(table[i].name, key)) {
			*place = i;
			return &table[i];
		}
	return NULL;
}

/* What takes no argument on a command line is yes or no here. */
static int take(const struct opt *option, void *into, const char *text, char *why)
{
	if (value_takes_argument(option))
		return value_take(option, into, text, why);
	if (!strcmp(text, "yes"))
		return value_take(option, into, "", why);
	if (!strcmp(text, "no"))
		return 0;
	snprintf(why, VALUE_WHY_BYTES, "takes yes or no, not \"%.64s\"", text);
	return -1;
}

static int add_rule(const char *rule, struct shmq__why *why)
{
	int error = access_check(rule, why);
	char **more;

	if (error)
		return error;
	more = grow(reader->config->allow, reader->config->allow_count, sizeof(*more));
	if (!more)
		return -ENOMEM;
	reader->config->allow = more;
	more[reader->config->allow_count++] = copy(rule);
	return reader->error;
}

static int is_plain(const char *text)
{
	for (; *text; text++)
		if (iscntrl((unsigned char)*text))
			return 0;
	return 1;
}

/* Called for each rule of the list, and once more at its end. */
static int check_rules(cfg_t *root, cfg_opt_t *list)
{
	unsigned count = cfg_opt_size(list);
	const char *first = cfg_opt_getnstr(list, 0), *text;
	struct shmq__why told = { "" };
	int line = root->line;

	/* In the place of a list before this one. */
	if (count < reader->rules ||
	    (reader->first_rule && strcmp(reader->first_rule, first) != 0)) {
		mistake(line, column_of(line, list->name),
			"allow is set already: more rules are added by +=");
		return -1;
	}
	if (count == reader->rules)
		return reader->error;
	if (!reader->first_rule)
		reader->first_rule = copy(first);
	reader->rules = count;
	text = cfg_opt_getnstr(list, count - 1);
	if (!is_plain(text))
		mistake(line, 1, "allow has a control character in it");
	else if (add_rule(text, &told))
		mistake(line, column_of(line, text), "%s", told.text);
	else
		add_item("", "", "allow", text);
	return is_full() ? -1 : 0;
}

/* Called for each value as it is read. */
static int check_value(cfg_t *section, cfg_opt_t *opt)
{
	const char *text = cfg_opt_getnstr(opt, 0);
	const char *name = strcmp(section->name, "root") != 0 ? section->name : "";
	const char *title = section->title ? section->title : "";
	int line = section->line;
	char why[VALUE_WHY_BYTES] = "";
	const struct opt *option;
	size_t place = 0;
	void *into;

	if (is_full() || !text)
		return -1;
	if (!is_plain(text)) {
		mistake(line, 1, "%s has a control character in it", opt->name);
		return 0;
	}
	option = find_option(name, title, opt->name, &into, &place);
	if (!option || !into || reader->error)
		return -1;
	if (is_said(name, place)) {
		mistake(line, column_of(line, opt->name), "%s is set already%s%s", opt->name,
			*name ? " in this " : "", name);
		return 0;
	}
	if (option->kind == OPT_TEXT && *text != '/')
		snprintf(why, sizeof(why), "takes an absolute path, not \"%.64s\"", text);
	else if (option->kind == OPT_TEXT) {
		char *kept = copy(text);

		value_take(option, into, kept, why);
	} else
		take(option, into, text, why);
	if (*why)
		mistake(line, column_of(line, text), "%s %s", opt->name, why);
	add_item(name, title, opt->name, text);
	return 0;
}

/* ---- sections as wholes ---------------------------------------------- */

/* Where a section with this title begins. */
static void find_title(const char *title, int *line, unsigned *column)
{
	char quoted[SHMQ_NAME_MAX + 3];
	const char *text = reader->config->text, *found, *at;

	snprintf(quoted, sizeof(quoted), "\"%.*s\"", SHMQ_NAME_MAX, title);
	found = strstr(text, quoted);
	*line = 1;
	for (at = text; found && (at = memchr(text, '\n', (size_t)(found - text))); text = at + 1)
		++*line;
	*column = found ? (unsigned)(found - text) + 1 : 1;
}

/* Of a section that is wrong as a whole. */
static void wrong_section(const char *what, const char *title, const char *text)
{
	unsigned column;
	int line;

	find_title(title, &line, &column);
	mistake(line, column, "%s%s", what, text);
}

static int by_text(const void *a, const void *b)
{
	return strcmp(a, b);
}

/* Called at the end of a section with a title, which the parser need not keep: it looks
 * through all it has for each new one. */
static int close_section(cfg_t *root, cfg_opt_t *sections)
{
	unsigned last = cfg_opt_size(sections) - 1;
	const char *title = cfg_title(cfg_opt_getnsec(sections, last)), *kept = NULL;
	int is_topic = !strcmp(sections->name, "topic");
	struct config_topic *topic = is_topic ? topic_of(title) : NULL;
	struct config_limit *limit = is_topic ? NULL : limit_of(title);
	char quoted[SHMQ_NAME_MAX + 3];
	const char **known;

	kept = topic ? topic->name : limit ? limit->title : NULL;
	known = kept ? tsearch(kept, &reader->titles[is_topic], by_text) : NULL;
	if (!known)
		reader->error = -ENOMEM;
	else if (*known != kept) {
		snprintf(quoted, sizeof(quoted), "\"%.*s\"", SHMQ_NAME_MAX, title);
		mistake(root->line, column_of(root->line, quoted), "%s %s is there already",
			sections->name, quoted);
	}
	reader->is_begun = 0;
	reader->said_here = 0;
	cfg_opt_rmnsec(sections, last);
	return is_full() ? -1 : 0;
}

static void keep(void *title)
{
	(void)title; /* it is the configuration's */
}

static void check_topics(void)
{
	struct config *c = reader->config;
	struct shmq__why why = { "" };
	unsigned i;

	for (i = 0; i < c->topic_count && !is_full(); i++) {
		struct shmq_topic_options options = c->topic[i].options;
		char what[SHMQ_NAME_MAX + 16];

		snprintf(what, sizeof(what), "topic \"%.*s\": ", SHMQ_NAME_MAX, c->topic[i].name);
		if (shmq__name_check_topic(c->topic[i].name, SHMQ__NAME_USER, &why) ||
		    shmq__layout_defaults(&options, why.text, sizeof(why.text)))
			wrong_section(what, c->topic[i].name, why.text);
	}
}

static int limits_somebody(const struct config_limit *limit)
{
	const struct config_limit *other = reader->config->limit;
	unsigned i;

	for (i = 0; i < reader->config->limit_count; i++, other++)
		if (other != limit && other->is_checked &&
		    other->is_everyone == limit->is_everyone && other->uid == limit->uid)
			return 1;
	return 0;
}

static void check_limits(void)
{
	struct config *c = reader->config;
	struct shmq__why why = { "" };
	unsigned i;

	for (i = 0; i < c->limit_count && !is_full(); i++) {
		struct config_limit *limit = &c->limit[i];

		if (access_read_user(limit->title, &limit->uid, &limit->is_everyone, &why))
			wrong_section("limits: ", limit->title, why.text);
		else if (limits_somebody(limit))
			wrong_section("limits: ", limit->title, "that uid has some already");
		limit->is_checked = 1;
	}
}

static void check_defaults(cfg_t *root)
{
	struct proto_options wire = { 0 };
	struct shmq_topic_options options;
	struct shmq__why why = { "" };

	if (!cfg_size(root, "defaults"))
		return;
	config_fill_defaults(reader->config, &wire);
	proto_get_options(&wire, &options);
	if (shmq__layout_defaults(&options, why.text, sizeof(why.text)))
		mistake(cfg_getsec(root, "defaults")->line, 1, "defaults: %s", why.text);
}

static cfg_opt_t nothing[] = { CFG_END() };

static cfg_opt_t unknown_option(const struct unknown *u)
{
	cfg_opt_t value = CFG_STR(u->name, NULL, CFGF_NODEFAULT),
		  list = CFG_STR_LIST(u->name, NULL, CFGF_NODEFAULT),
		  section = CFG_SEC(u->name, nothing, CFGF_NODEFAULT),
		  made = u->kind == VALUE ? value :
			 u->kind == LIST  ? list :
					    section;

	if (u->kind == TITLED)
		made.flags |= CFGF_MULTI | CFGF_TITLE;
	made.validcb = note_unknown;
	return made;
}

static cfg_opt_t *add_table(cfg_opt_t *to, const char *section, const struct opt *table,
			    size_t count)
{
	size_t i;

	for (i = 0; i < count; i++)
		*to++ = (cfg_opt_t)CFG_STR(table[i].name, NULL, CFGF_NODEFAULT);
	for (i = 0; i < reader->unknown_count; i++)
		if (!strcmp(reader->unknown[i].section, section))
			*to++ = unknown_option(&reader->unknown[i]);
	return to;
}

static void watch_table(cfg_t *root, const char *section, const struct opt *table, size_t count)
{
	char path[96];
	size_t i;

	for (i = 0; i < count; i++) {
		snprintf(path, sizeof(path), "%s%s%s", section, *section ? "|" : "", table[i].name);
		cfg_set_validate_func(root, path, check_value);
	}
}

static int is_rule(const struct config_item *item)
{
	return !*item->section && !strcmp(item->key, "allow");
}

/* By what names a setting; a rule is named by all of it. */
static int compare_items(const void *a, const void *b)
{
	const struct config_item *x = *(struct config_item *const *)a,
				 *y = *(struct config_item *const *)b;
	int rc = strcmp(x->section, y->section);

	if (!rc)
		rc = strcmp(x->title, y->title);
	if (!rc)
		rc = strcmp(x->key, y->key);
	return rc || !is_rule(x) ? rc : strcmp(x->value, y->value);
}

static int sort_items(struct config *c)
{
	unsigned i;

	c->sorted = calloc(c->item_count + 1, sizeof(struct config_item *));
	if (!c->sorted)
		return -ENOMEM;
	for (i = 0; i < c->item_count; i++)
		c->sorted[i] = &c->item[i];
	qsort(c->sorted, c->item_count, sizeof(struct config_item *), compare_items);
	return 0;
}

static int read_text(cfg_t *root)
{
	char *text = NULL;
	int rc;

	if (asprintf(&text, "%s\n" END " = 1\n", reader->config->text) < 0)
		return -ENOMEM;
	rc = cfg_parse_buf(root, text);
	free(text);
	if (rc == CFG_SUCCESS && !cfg_size(root, END)) {
		mistake(root->line, 1, "the file ends within a comment or a text");
	} else if (rc == CFG_SUCCESS) {
		/* An empty list in the place of one before is told by nothing else. */
		if (cfg_size(root, "allow") != reader->rules)
			mistake(1, 1, "allow is set twice: more rules are added by +=");
		check_topics();
		check_limits();
		check_defaults(root);
	}
	if (reader->error)
		return reader->error;
	if (rc != CFG_SUCCESS && !reader->mistakes)
		mistake(root->line, 1, "is not understood here: see shmqd.conf(5)");
	return reader->mistakes ? SHMQ_EOPTION : 0;
}

/* One reading of the text. */
static int read_once(const char *text, size_t bytes)
{
	cfg_opt_t topic[MISTAKES_MAX + 64], defaults[MISTAKES_MAX + 64], limits[MISTAKES_MAX + 8],
		options[MISTAKES_MAX + 16], *end;
	struct config *c = calloc(1, sizeof(*c));
	cfg_t *root;
	int error;

	if (!c)
		return -ENOMEM;
	reader->config = c;
	c->defaults.size = sizeof(c->defaults);
	c->text = strndup(text, bytes);
	c->text_bytes = bytes;
	*add_table(topic, "topic", shape_options, shape_option_count) = (cfg_opt_t)CFG_END();
	*add_table(defaults, "defaults", shape_options, shape_option_count) = (cfg_opt_t)CFG_END();
	*add_table(limits, "limits", limit_options, ARRAY_COUNT(limit_options)) =
		(cfg_opt_t)CFG_END();
	end = add_table(options, "root", bus_options, ARRAY_COUNT(bus_options));
	*end++ = (cfg_opt_t)CFG_STR_LIST("allow", NULL, CFGF_NODEFAULT);
	*end++ = (cfg_opt_t)CFG_STR(END, NULL, CFGF_NODEFAULT);
	*end++ = (cfg_opt_t)CFG_SEC("defaults", defaults, CFGF_NODEFAULT);
	*end++ = (cfg_opt_t)CFG_SEC("topic", topic, CFGF_MULTI | CFGF_TITLE);
	*end++ = (cfg_opt_t)CFG_SEC("limits", limits, CFGF_MULTI | CFGF_TITLE);
	*end = (cfg_opt_t)CFG_END();
	root = cfg_init(options, CFGF_NONE);
	error = root && c->text ? 0 : -ENOMEM;
	if (!error && strlen(c->text) != bytes) {
		mistake(1, 1, "has a byte 0 in it: it is no text");
		error = SHMQ_EOPTION;
	}
	if (!error) {
		cfg_set_error_function(root, complain);
		watch_table(root, "", bus_options, ARRAY_COUNT(bus_options));
		cfg_set_validate_func(root, "allow", check_rules);
		cfg_set_validate_func(root, "topic", close_section);
		cfg_set_validate_func(root, "limits", close_section);
		watch_table(root, "defaults", shape_options, shape_option_count);
		watch_table(root, "topic", shape_options, shape_option_count);
		watch_table(root, "limits", limit_options, ARRAY_COUNT(limit_options));
		error = read_text(root);
	}
	if (root)
		cfg_free(root);
	tdestroy(reader->titles[0], keep);
	tdestroy(reader->titles[1], keep);
	free(reader->first_rule);
	return error;
}

int config_parse(const char *name, const char *text, size_t bytes, struct config **out,
		 config_say say, void *arg)
{
	struct reader state = { .name = name, .say = say, .arg = arg };
	unsigned i;
	int error = 0;

	_Static_assert(ARRAY_COUNT(limit_options) < 8 && ARRAY_COUNT(bus_options) < 12, "tables");
	*out = NULL;
	if (shape_option_count >= 64)
		return -E2BIG;
	reader = &state;
	do {
		config_free(state.config);
		state.config = NULL;
		memset((char *)&state + offsetof(struct reader, rules), 0,
		       sizeof(state) - offsetof(struct reader, rules));
		state.again = 0;
		error = read_once(text, bytes);
	} while (state.again && !is_full());
	reader = NULL;
	for (i = 0; i < state.mistakes; i++)
		free(state.told[i]);
	if (!error)
		error = sort_items(state.config);
	if (error)
		config_free(state.config);
	else
		*out = state.config;
	return error;
}

static int check_owner(const char *path, const struct stat *st, config_say say, void *arg)
{
	int everybody = st->st_mode & S_IWOTH, group = st->st_mode & S_IWGRP;
	char text[512], besides[32] = "";

	if ((!st->st_uid || st->st_uid == geteuid()) && !everybody && !group)
		return 0;
	if (everybody)
		snprintf(besides, sizeof(besides), " and everybody");
	else if (group) /* what an access control list gives to others is in its bits, too */
		snprintf(besides, sizeof(besides), " and group %u", (unsigned)st->st_gid);
	snprintf(text, sizeof(text),
		 "%.300s: uid %u%s can change it, and uid %u runs this bus: chown and chmod it, or "
		 "name it by --config",
		 path, (unsigned)st->st_uid, besides, (unsigned)geteuid());
	if (say)
		say(arg, text);
	return SHMQ_EOPTION;
}

/* A file that is being written is read again by whoever asked. */
static int read_file(const char *path, enum config_whose whose, char **text, size_t *bytes,
		     config_say say, void *arg)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	struct stat st;
	ssize_t n = 0;
	size_t used = 0;
	int error;

	*text = NULL;
	if (fd < 0)
		return -errno;
	error = fstat(fd, &st) || !S_ISREG(st.st_mode) ? -EISDIR :
		whose == CONFIG_OWN                    ? check_owner(path, &st, say, arg) :
							 0;
	if (error) {
		close(fd);
		return error;
	}
	if ((uint64_t)st.st_size <= CONFIG_BYTES_MAX)
		*text = malloc((size_t)st.st_size + 1);
	while (*text && used < (size_t)st.st_size &&
	       (n = read(fd, *text + used, (size_t)st.st_size - used)) > 0)
		used += (size_t)n;
	*bytes = used;
	n = n < 0 ? -errno : 0;
	close(fd);
	if (!*text)
		return (uint64_t)st.st_size > CONFIG_BYTES_MAX ? -EFBIG : -ENOMEM;
	return (int)n;
}

int config_read(const char *path, enum config_whose whose, struct config **out, config_say say,
		void *arg)
{
	char *text;
	size_t bytes = 0;
	int error = read_file(path, whose, &text, &bytes, say, arg);

	*out = NULL;
	if (!error)
		error = config_parse(path, text, bytes, out, say, arg);
	free(text);
	return error;
}

void config_free(struct config *c)
{
	unsigned i;

	if (!c)
		return;
	for (i = 0; i < c->item_count; i++) {
		free(c->item[i].section);
		free(c->item[i].title);
		free(c->item[i].key);
		free(c->item[i].value);
	}
	for (i = 0; i < c->allow_count; i++)
		free(c->allow[i]);
	for (i = 0; i < c->topic_count; i++) {
		free(c->topic[i].name);
		free((char *)(uintptr_t)c->topic[i].options.log_dir);
	}
	free((char *)(uintptr_t)c->defaults.log_dir);
	for (i = 0; i < c->limit_count; i++)
		free(c->limit[i].title);
	free(c->item);
	free(c->sorted);
	free(c->allow);
	free(c->topic);
	free(c->limit);
	free(c->data_dir);
	free(c->log_dirs);
	free(c->log);
	free(c->text);
	free(c);
}

/* ---- where it is ----------------------------------------------------- */

int config_find(const char *dir, const char *bus, char *path, size_t bytes)
{
	const char *config = secure_getenv("XDG_CONFIG_HOME"), *home = secure_getenv("HOME");
	const struct passwd *user;
	int n;

	if (!strcmp(dir, "/run/shmq")) {
		n = snprintf(path, bytes, "/etc/shmq/%s.conf", bus);
	} else if (config && *config == '/') {
		n = snprintf(path, bytes, "%s/shmq/%s.conf", config, bus);
	} else {
		if (!home || *home != '/') {
			user = getpwuid(geteuid());
			home = user ? user->pw_dir : "/";
		}
		n = snprintf(path, bytes, "%s/.config/shmq/%s.conf", home, bus);
	}
	return n < (int)bytes ? 0 : -ENAMETOOLONG;
}

static int write_all(int fd, const char *text, size_t bytes)
{
	ssize_t n;

	for (; bytes; text += n, bytes -= (size_t)n) {
		n = write(fd, text, bytes);
		if (n < 0)
			return -errno;
	}
	return 0;
}

#define COPY_OF "\n# a copy of "

int config_put(const struct config *c, const char *path, const char *scratch, const char *from)
{
	char last[sizeof(COPY_OF) + PATH_MAX + 1];
	int fd, error, n;

	if (!c)
		return unlink(path) && errno != ENOENT ? -errno : 0;
	unlink(scratch);
	fd = open(scratch, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0)
		return -errno;
	error = write_all(fd, c->text, c->text_bytes);
	n = snprintf(last, sizeof(last), COPY_OF "%s\n", from);
	if (!error && n < (int)sizeof(last) && !strchr(from, '\n') &&
	    c->text_bytes + (size_t)n < CONFIG_BYTES_MAX)
		error = write_all(fd, last, (size_t)n);
	close(fd);
	if (!error && rename(scratch, path))
		error = -errno;
	if (error)
		unlink(scratch);
	return error;
}

void config_put_from(const char *path, char *from, size_t bytes)
{
	char text[sizeof(COPY_OF) + PATH_MAX + 1], *at = NULL, *next = text;
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOFOLLOW);
	off_t end = fd < 0 ? 0 : lseek(fd, 0, SEEK_END), room = (off_t)sizeof(text) - 1;
	ssize_t n = fd < 0 ? 0 : pread(fd, text, (size_t)room, end > room ? end - room : 0);

	if (fd >= 0)
		close(fd);
	text[n > 0 ? n : 0] = 0;
	while ((next = strstr(next, COPY_OF)))
		at = next += strlen(COPY_OF);
	snprintf(from, bytes, "%.*s", at ? (int)strcspn(at, "\n") : 0, at ? at : "");
}

/* ---- two of them ----------------------------------------------------- */

static const struct config_item *find_item(const struct config *c, const struct config_item *like)
{
	struct config_item **found = c ? bsearch(&like, c->sorted, c->item_count,
						 sizeof(struct config_item *), compare_items) :
					 NULL;

	return found ? *found : NULL;
}

unsigned config_compare(const struct config *from, const struct config *to, config_change change,
			void *arg)
{
	const struct config_item *other;
	unsigned i, n = 0;

	for (i = 0; from && i < from->item_count; i++)
		if (!find_item(to, &from->item[i])) {
			change(arg, &from->item[i], from->item[i].value, NULL);
			n++;
		}
	for (i = 0; to && i < to->item_count; i++) {
		other = find_item(from, &to->item[i]);
		if (other && !strcmp(other->value, to->item[i].value))
			continue;
		change(arg, &to->item[i], other ? other->value : NULL, to->item[i].value);
		n++;
	}
	return n;
}

/* ---- what follows from it -------------------------------------------- */

#define FILL(field) \
	do { \
		if (!w->field) \
			w->field = d.field; \
	} while (0)

void config_fill_defaults(const struct config *c, struct proto_options *w)
{
	struct proto_options d;

	if (!c)
		return;
	proto_put_options(&c->defaults, &d);
	FILL(depth);
	FILL(slot_bytes);
	FILL(max_bytes);
	FILL(partitions);
	FILL(mode);
	FILL(policy);
	FILL(pages);
	FILL(lock);
	FILL(node);
	if (!w->wait)
		w->flags |= d.flags & SHMQ_TOPIC_SPIN_ONLY;
	if (!(w->flags & SHMQ_TOPIC_SPIN_ONLY))
		FILL(wait);
	w->flags |= d.flags & (SHMQ_TOPIC_TAG | SHMQ_TOPIC_TIME);
	/* One that the creator's own choices exclude is left out. */
	if (w->mode == SHMQ_SHARED)
		FILL(stall);
	if (w->policy == SHMQ_EVICT)
		FILL(evict_ns);
	if (!w->policy || w->policy == SHMQ_BLOCK)
		FILL(block_timeout_ns);
	if (w->policy != SHMQ_LOSSY || d.log != SHMQ_LOG_BLOCK)
		FILL(log);
	if (w->log <= SHMQ_LOG_NONE)
		return;
	FILL(sync);
	if (w->sync == d.sync)
		FILL(sync_ns);
	FILL(segment_bytes);
	FILL(retain_bytes);
	FILL(retain_ns);
	FILL(compress);
	w->flags |= d.flags & (SHMQ_TOPIC_RETAIN_CURSORS | SHMQ_TOPIC_RETAIN_KEYS);
	if (w->flags & SHMQ_TOPIC_RETAIN_KEYS)
		FILL(tombstone_ns);
}

void config_fill_log_dir(const struct config *c, const struct proto_options *w,
			 char log_dir[PROTO_LOG_DIR_BYTES])
{
	if (c && c->defaults.log_dir && w->log > SHMQ_LOG_NONE && !*log_dir)
		snprintf(log_dir, PROTO_LOG_DIR_BYTES, "%s", c->defaults.log_dir);
}

struct config_limits config_limits_of(const struct config *c, const struct access_caller *who)
{
	const struct config_limit *everyone = NULL;
	unsigned i;

	for (i = 0; c && i < c->limit_count; i++) {
		if (!c->limit[i].is_everyone && c->limit[i].uid == who->uid)
			return c->limit[i].limits;
		if (c->limit[i].is_everyone)
			everyone = &c->limit[i];
	}
	return everyone && !access_is_owner(who) ? everyone->limits : no_limits;
}
