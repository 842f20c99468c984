/* SPDX-License-Identifier: MIT */
#include "cli.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CHUNK_BYTES ((size_t)256 << 10)
#define PREFIX_BYTES 4 /* of a frame: its length, little-endian */

/* Not stdio: views into one buffer save a copy per message, and whether a
 * read would block decides when a batch is sent. */

static size_t frame_length(const char *at)
{
	const unsigned char *byte = (const unsigned char *)at;

	return byte[0] | (size_t)byte[1] << 8 | (size_t)byte[2] << 16 | (size_t)byte[3] << 24;
}

static enum input_status next_line(struct input *input, const char **data, size_t *len)
{
	const char *from = input->buf + input->scanned, *newline = NULL;

	if (input->scanned < input->end)
		newline = memchr(from, '\n', input->end - input->scanned);
	*len = newline ? (size_t)(newline - input->buf) - input->start : input->end - input->start;
	if (*len > input->limit)
		return INPUT_TOO_LONG;
	input->scanned = input->end;
	if (!newline)
		return INPUT_NEEDS_MORE;
	*data = input->buf + input->start;
	input->start += *len + 1;
	input->scanned = input->start;
	return INPUT_RECORD;
}

static enum input_status next_frame(struct input *input, const char **data, size_t *len)
{
	if (input->end - input->start < PREFIX_BYTES)
		return INPUT_NEEDS_MORE;
	*len = frame_length(input->buf + input->start);
	if (*len > input->limit)
		return INPUT_TOO_LONG;
	if (input->end - input->start - PREFIX_BYTES < *len)
		return INPUT_NEEDS_MORE;
	*data = input->buf + input->start + PREFIX_BYTES;
	input->start += PREFIX_BYTES + *len;
	return INPUT_RECORD;
}

static enum input_status next_file(struct input *input, size_t *len)
{
	*len = input->end - input->start;
	return *len > input->limit ? INPUT_TOO_LONG : INPUT_NEEDS_MORE;
}

enum input_status input_next(struct input *input, const char **data, size_t *len)
{
	enum input_status status;

	if (input->shape == INPUT_LINES)
		status = next_line(input, data, len);
	else if (input->shape == INPUT_FRAMES)
		status = next_frame(input, data, len);
	else
		status = next_file(input, len);
	if (status == INPUT_RECORD || status == INPUT_TOO_LONG)
		input->number++;
	return status;
}

enum input_status input_rest(struct input *input, const char **data, size_t *len)
{
	*data = input->buf + input->start;
	*len = input->end - input->start;
	if (input->shape == INPUT_FRAMES)
		return *len ? INPUT_CUT : INPUT_NEEDS_MORE;
	if (input->shape == INPUT_LINES && !*len)
		return INPUT_NEEDS_MORE;
	input->start = input->scanned = input->end;
	input->number++;
	return INPUT_RECORD;
}

static void compact(struct input *input)
{
	if (!input->start)
		return;
	memmove(input->buf, input->buf + input->start, input->end - input->start);
	input->end -= input->start;
	input->scanned -= input->scanned < input->start ? input->scanned : input->start;
	input->start = 0;
}

ssize_t input_fill(struct input *input)
{
	ssize_t n;

	compact(input);
	if (input->room - input->end < CHUNK_BYTES) {
		input->room = input->room ? input->room * 2 : 2 * CHUNK_BYTES;
		input->buf = cli_alloc(input->buf, input->room);
	}
	n = read(input->fd, input->buf + input->end, input->room - input->end);
	if (n < 0)
		return -errno;
	input->end += (size_t)n;
	return n;
}

void input_clear(struct input *input)
{
	free(input->buf);
	*input = (struct input){ 0 };
}
