/* one_line.h - messages may quote hostile input: what reaches a terminal or a log is one line without control characters. */
#ifndef ONE_LINE_H
#define ONE_LINE_H

/* Every control character, of ASCII and of Latin-1 (U+0080 to U+009F as UTF-8: terminals obey some of them), becomes '?'. */
void pva_one_line(char *text);

#endif
