"""The client: tokens in and out, drawing them, and the way to the Workers. Needs neither torch nor ray."""
