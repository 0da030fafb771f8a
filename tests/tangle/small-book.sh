#!/bin/sh
# tests/tangle/small-book.sh: from chapters/B-tangle-and-weave.md. Edit the chapter, or edit here and run "make untangle".
# Makes the book of one chapter that appendix B takes apart, in the folder given.
set -eu
rm -rf "$1"
mkdir -p "$1/chapters"
cd "$1"
# write the small book
cat > book.yaml <<'END'
title: Greetings
parts:
  - title: ""
    chapters:
      - {id: greet, number: "1", files: [chapters/01-greet.md], owns: [greet]}
END
# write the small chapter
sed 's/@say-hello@/<<say-hello>>/' > chapters/01-greet.md <<'END'
# Greet {#sec:greet}

A program that greets has to know whom.

~~~{.c file=code/greet/greet.c}
#include <stdio.h>

@say-hello@

int main(int argc, char **argv)
{
    if (argc < 2)
        return 1;
    say_hello(argv[1]);
    return 0;
}
~~~

The greeting is one line, so that a terminal shows it at once.

~~~{.c #say-hello}
static void say_hello(const char *name)
{
    printf("hello, %s\n", name);
}
~~~
END
