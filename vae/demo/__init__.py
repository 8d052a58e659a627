"""The page: `page` holds what the tabs share, and each tab has a file, first its handlers and below them its layout."""
