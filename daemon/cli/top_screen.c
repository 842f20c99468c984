/* SPDX-License-Identifier: MIT
 *
 * top_screen: the views on a terminal.  Columns that do not fit are left out from
 * the right; all that is shown fits 80 by 24.
 */
#include "top.h"

#include <curses.h>
#include <locale.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

#define HEAD_LINES 3 /* bus, view, heads of the columns */
#define FOOT_LINES 1
#define TURNS_PER_SECOND 20

/* One level: the view, where it is sorted and what is chosen in it. */
struct level {
	const struct top_view *view;
	struct top_order order;
	uint64_t id, part; /* of the row chosen */
	struct top_row of; /* the row that was looked into */
};

struct screen {
	struct top *top;
	struct top_look before, now;
	struct level level[2];
	unsigned depth; /* of the level that is shown */
	struct top_rows rows;
	size_t first, chosen; /* row on the first line, and chosen */
	char filter[2][64];   /* of each level */
	int is_typing, is_held, is_helping;
	int bus; /* TOP_*, or the error of one that was stopped: what is shown
		    is its last */
	int code, done;
	int is_gone; /* the terminal */
};

static struct level *here(struct screen *s)
{
	return &s->level[s->depth];
}

static size_t room(void)
{
	return LINES > HEAD_LINES + FOOT_LINES ? (size_t)(LINES - HEAD_LINES - FOOT_LINES) : 1;
}

/* ---- rows -------------------------------------------------------------- */

/* What is chosen stays so, wherever the order puts it. */
static void find_chosen(struct screen *s)
{
	struct level *l = here(s);
	size_t i;

	for (i = 0; i < s->rows.count; i++)
		if (s->rows.all[i].id == l->id && s->rows.all[i].part == l->part)
			break;
	if (i < s->rows.count)
		s->chosen = i;
	if (s->chosen >= s->rows.count)
		s->chosen = s->rows.count ? s->rows.count - 1 : 0;
	if (s->chosen < s->first)
		s->first = s->chosen;
	if (s->chosen >= s->first + room())
		s->first = s->chosen - room() + 1;
	if (s->first && s->first + room() > s->rows.count)
		s->first = s->rows.count > room() ? s->rows.count - room() : 0;
}

static void make_rows(struct screen *s)
{
	struct level *l = here(s);

	top_rows_clear(&s->rows);
	l->order.filter = s->filter[s->depth];
	l->order.all = s->top->order.all;
	top_rows(l->view, &s->before, &s->now, s->depth ? &l->of : NULL, &l->order, &s->rows);
	find_chosen(s);
}

static void choose(struct screen *s, long long to)
{
	long long last = (long long)s->rows.count - 1;

	if (last < 0)
		return;
	s->chosen = (size_t)(to < 0 ? 0 : to > last ? last : to);
	here(s)->id = s->rows.all[s->chosen].id;
	here(s)->part = s->rows.all[s->chosen].part;
	find_chosen(s);
}

static void look(struct screen *s)
{
	s->bus = top_find_bus(s->top->cli);
	if (s->bus < 0)
		return;
	top_look_clear(&s->before);
	s->before = s->now;
	s->now = (struct top_look){ 0 };
	if (s->bus == TOP_OTHER)
		top_look_clear(&s->before);
	s->code = top_look(s->top->cli->bus, &s->now);
	if (s->code < 0)
		s->done = 1;
	make_rows(s);
}

/* ---- drawing ----------------------------------------------------------- */

static void put_line(int y, attr_t how, const char *text)
{
	attrset(how);
	mvaddnstr(y, 0, text, COLS);
	clrtoeol();
	attrset(A_NORMAL);
}

static void draw_bus(struct screen *s)
{
	const struct shmq_bus_info *bus = &s->now.bus;
	double sent = 0;
	char line[256];
	size_t i;

	for (i = 0; i < s->now.topic_count; i++)
		sent += (double)s->now.topics[i].info.sleepers;
	snprintf(line, sizeof(line), "bus %.40s: %u %s, %u %s, %s shared, %.0f asleep%s%s",
		 bus->name, bus->topics, units_plural(bus->topics, "topic", "topics"), bus->clients,
		 units_plural(bus->clients, "client", "clients"), units_size(bus->bytes).s, sent,
		 s->bus == TOP_AWAY ? ", supervisor away" : "", s->is_held ? "  [held]" : "");
	if (s->bus < 0)
		snprintf(line, sizeof(line), "bus %.40s: stopped; this is the last that was seen",
			 bus->name);
	put_line(0, A_BOLD, line);
}

static void draw_view(struct screen *s)
{
	struct level *l = here(s);
	char line[512], title[320];

	if (s->depth)
		snprintf(title, sizeof(title), "%s %s",
			 l->view->what == TOP_PEERS ? "topic" : "process", l->of.name);
	else
		snprintf(title, sizeof(title), "%s", l->view->name);
	snprintf(line, sizeof(line), "%s: %zu, by %s%s%s%s%s", title, s->rows.count,
		 l->view->columns[l->order.column].head, l->order.is_reversed ? " reversed" : "",
		 s->is_typing || s->filter[s->depth][0] ? ", filter /" : "", s->filter[s->depth],
		 s->is_typing ? "_" : "");
	put_line(1, A_NORMAL, line);
}

static int draw_cell(int y, int x, const struct top_column *column, const char *text, int is_first)
{
	int width = column->width;

	/* The name takes what is left over. */
	if (is_first && COLS > 80)
		width += COLS - 80 < 40 ? COLS - 80 : 40;
	if (column->kind == TOP_TEXT)
		mvprintw(y, x, "%-*.*s", width, width, text);
	else
		mvprintw(y, x, "%*.*s", width, width, text);
	return x + width + 1;
}

static void draw_row(struct screen *s, int y, const struct top_row *row)
{
	const struct top_view *view = here(s)->view;
	size_t k;
	int x = 0;

	for (k = 0; k < view->count; k++) {
		const struct top_column *column = &view->columns[k];

		if (x + column->width > COLS)
			break;
		if (!row && here(s)->order.column == k)
			attron(A_UNDERLINE);
		x = draw_cell(y, x, column, row ? top_cell(column, row).s : column->head, !k);
		if (!row)
			attroff(A_UNDERLINE);
	}
}

static void draw_help(void)
{
	static const char *const lines[] = {
		"t p l d     topics, processes, logs, the disks that those are on",
		"Up Down     choose a row; PgUp, PgDn, Home, End likewise",
		"Enter       look into it: who has the topic open, what the process has open",
		"Backspace   back",
		"< >         sort by the column to the left, to the right",
		"r           turn the order",
		"/           filter by name; Enter ends it, Esc leaves it out",
		"a           topics of the bus itself, too, which begin with $",
		"Space       hold the picture, and go on",
		"q           leave",
		"",
		"SLP asleep now, LAG messages behind, OWN memory of its own, MAPPED the rings",
		"it has open; P99 from publish to receive, of who measures (sub --latency).",
	};
	size_t i;

	for (i = 0; i < ARRAY_COUNT(lines) && (int)i + HEAD_LINES < LINES; i++)
		mvaddnstr(HEAD_LINES + (int)i, 2, lines[i], COLS - 2);
}

static void draw(struct screen *s)
{
	size_t i;

	erase();
	draw_bus(s);
	draw_view(s);
	attrset(A_BOLD);
	draw_row(s, 2, NULL);
	attrset(A_NORMAL);
	for (i = 0; !s->is_helping && i < room() && s->first + i < s->rows.count; i++) {
		int y = HEAD_LINES + (int)i;

		draw_row(s, y, &s->rows.all[s->first + i]);
		if (s->first + i == s->chosen)
			mvchgat(y, 0, -1, A_REVERSE, 0, NULL);
	}
	if (s->is_helping)
		draw_help();
	put_line(LINES - 1, A_REVERSE,
		 s->is_typing ? "type what names have in them; Enter keeps it, Esc drops it" :
				"t topics p processes l logs d disks  Enter into  Bksp back  < > r "
				"sort  / ? q");
	refresh();
}

/* ---- keys ---------------------------------------------------------------- */

static void show(struct screen *s, const struct top_view *view)
{
	s->depth = 0;
	if (here(s)->view != view)
		*here(s) = (struct level){ .view = view, .order.column = view->sorted_by };
	s->first = s->chosen = 0;
}

static void enter(struct screen *s)
{
	const struct top_view *into = here(s)->view->into;

	if (!into || s->depth || s->chosen >= s->rows.count)
		return;
	s->level[1] = (struct level){ .view = into,
				      .order.column = into->sorted_by,
				      .of = s->rows.all[s->chosen] };
	s->depth = 1;
	s->filter[1][0] = '\0';
	s->first = s->chosen = 0;
}

static void type(struct screen *s, int key)
{
	char *filter = s->filter[s->depth];
	size_t len = strlen(filter);

	if (key == '\n' || key == KEY_ENTER || key == 27)
		s->is_typing = 0;
	if (key == 27)
		filter[0] = '\0';
	else if ((key == KEY_BACKSPACE || key == 127 || key == 8) && len)
		filter[len - 1] = '\0';
	else if (key > 32 && key < 127 && len + 1 < sizeof(s->filter[0])) {
		filter[len] = (char)key;
		filter[len + 1] = '\0';
	}
}

static void sort_by(struct screen *s, int step)
{
	struct level *l = here(s);
	int column = (int)l->order.column + step;

	if (column >= 0 && column < (int)l->view->count)
		l->order.column = (unsigned)column;
}

static void press(struct screen *s, int key)
{
	long long page = (long long)room();

	if (s->is_typing) {
		type(s, key);
		return;
	}
	s->is_helping = key == '?' && !s->is_helping;
	switch (key) {
	case 'q':
		s->done = 1;
		break;
	case 't':
	case 'p':
	case 'l':
	case 'd':
		show(s, &top_views[key == 't' ? 0 : key == 'p' ? 1 : key == 'l' ? 2 : 3]);
		break;
	case '\n':
	case KEY_ENTER:
		enter(s);
		break;
	case KEY_BACKSPACE:
	case 127:
	case 8:
	case 27:
		s->depth = 0;
		break;
	case '<':
		sort_by(s, -1);
		break;
	case '>':
		sort_by(s, 1);
		break;
	case 'r':
		here(s)->order.is_reversed = !here(s)->order.is_reversed;
		break;
	case 'a':
		s->top->order.all = !s->top->order.all;
		break;
	case '/':
		s->is_typing = 1;
		break;
	case ' ':
		s->is_held = !s->is_held;
		break;
	case KEY_UP:
	case KEY_DOWN:
		choose(s, (long long)s->chosen + (key == KEY_UP ? -1 : 1));
		break;
	case KEY_PPAGE:
	case KEY_NPAGE:
		choose(s, (long long)s->chosen + (key == KEY_PPAGE ? -page : page));
		break;
	case KEY_HOME:
		choose(s, 0);
		break;
	case KEY_END:
		choose(s, (long long)s->rows.count - 1);
		break;
	default:
		break;
	}
}

/* ---- the loop ------------------------------------------------------------ */

/* Then every getch() fails at once, and where hang-ups are ignored nothing else says so. */
static int terminal_is_gone(void)
{
	struct pollfd p = { .fd = STDIN_FILENO };

	return poll(&p, 1, 0) > 0;
}

static void watch(struct screen *s)
{
	int64_t next_ns = 0;
	int key;

	while (!s->done && !sig_stopped()) {
		if (cli_now_ns() >= next_ns && !s->is_held) {
			next_ns = cli_now_ns() + s->top->interval_ns;
			look(s);
		}
		draw(s);
		key = getch();
		if (key == ERR) {
			s->is_gone = s->done = terminal_is_gone();
			continue;
		}
		press(s, key);
		make_rows(s);
	}
}

int top_screen(struct top *top)
{
	struct screen s = { .top = top };
	SCREEN *terminal;

	setlocale(LC_CTYPE, "");
	terminal = newterm(NULL, stdout, stdin);
	if (!terminal) {
		out_say("showing the bus on a terminal: its kind is not known (hint: set TERM, "
			"or --once)");
		return CLI_FAILURE;
	}
	cbreak();
	noecho();
	keypad(stdscr, TRUE);
	set_escdelay(25);
	timeout(1000 / TURNS_PER_SECOND);
	curs_set(0);
	s.level[0] = (struct level){ .view = top->view, .order = top->order };
	snprintf(s.filter[0], sizeof(s.filter[0]), "%s",
		 top->order.filter ? top->order.filter : "");
	watch(&s);
	endwin();
	delscreen(terminal);
	top_rows_clear(&s.rows);
	top_look_clear(&s.before);
	top_look_clear(&s.now);
	if (s.is_gone) {
		out_say("showing the bus on a terminal: it is gone (hint: --json goes on without)");
		return CLI_FAILURE;
	}
	if (s.code < 0)
		return out_fail(top->cli, s.code, "looking at bus", shmq_bus_name(top->cli->bus),
				NULL);
	return CLI_OK;
}
