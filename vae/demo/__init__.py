"""The page: web/ is what a visitor sees; `page` makes its endpoints, and each tab has a file for its own."""
