/* SPDX-License-Identifier: MIT
 *
 * mklog: make the log of a topic without a bus, for tests of the command
 * line.  usage: mklog DIR TOPIC PARTITIONS <SCRIPT
 *
 *   partition P FIRST             what follows is in partition P
 *   message TS TYPE TAG KEY DATA  KEY is - for none; DATA is the rest of the line
 *   hole N, gap N, unknown N      so many seqs
 *   roll                          begin another segment
 */
#include "logdir.h"

#include <stdlib.h>

static void add_message(struct logpart *p, const char *arguments)
{
	struct shmq_msg msg = { 0 };
	char key[64];
	int used = 0;

	if (sscanf(arguments, "%" SCNu64 " %" SCNu16 " %" SCNu64 " %63s%n", &msg.ts_ns, &msg.type,
		   &msg.tag, key, &used) < 4)
		errx(1, "message %s", arguments);
	msg.key = key;
	msg.key_len = strcmp(key, "-") != 0 ? strlen(key) : 0;
	msg.data = arguments + used + (arguments[used] == ' ');
	msg.len = strlen(msg.data);
	logpart_message(p, &msg);
}

static void obey(struct logdir *log, struct logpart *p, char *line)
{
	char word[16] = "", *rest = line;
	uint64_t n;
	int used = 0;

	line[strcspn(line, "\n")] = 0;
	if (sscanf(line, "%15s%n", word, &used) < 1)
		return;
	rest += used;
	n = strtoull(rest, &rest, 10);
	if (!strcmp(word, "message"))
		add_message(p, line + used);
	else if (!strcmp(word, "hole"))
		logpart_skip(p, LOG_HOLE, n);
	else if (!strcmp(word, "gap"))
		logpart_skip(p, LOG_GAP, n);
	else if (!strcmp(word, "unknown"))
		logpart_record(p,
			       (struct log_record){
				       .tag = n, .kind = LOG_GAP, .flags = LOG_GAP_UNKNOWN },
			       NULL, 0);
	else if (!strcmp(word, "roll"))
		logpart_roll(p);
	else if (!strcmp(word, "partition")) {
		if (p->log)
			logpart_close(p);
		logpart_open(p, log, (uint32_t)n, strtoull(rest, NULL, 10));
	} else
		errx(1, "%s is no command", word);
}

int main(int argc, char **argv)
{
	static char line[65536];
	struct logpart p = { 0 };
	struct logdir log;

	if (argc != 4)
		errx(1, "usage: mklog DIR TOPIC PARTITIONS <SCRIPT");
	logdir_open(&log, argv[1], argv[2], (uint32_t)atoi(argv[3]),
		    SHMQ_TOPIC_TAG | SHMQ_TOPIC_TIME);
	while (fgets(line, sizeof(line), stdin))
		obey(&log, &p, line);
	if (p.log)
		logpart_close(&p);
	logdir_close(&log);
	return 0;
}
