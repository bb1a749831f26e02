def number_from_json(text: bytes) -> int | float | None:
    """The value of a text that is nothing but one JSON number: int if it has neither point nor exponent, else float.

    NaN and Infinity are numbers too. None if it is none, and also for integers beyond int64, numbers beyond double,
    exponents above 308. For tests; readers of JSON use read_number (decimal_read.pxd).
    """
