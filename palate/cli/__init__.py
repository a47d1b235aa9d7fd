"""The command line: a file a command. Commands turn words into calls and answers into text; they decide nothing."""
