"""What held the memory, told with every dump: streaming, in little memory and a bounded time; an estimate, and said so."""
