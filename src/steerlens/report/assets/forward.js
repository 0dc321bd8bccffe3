// The page of a head is for sites that show a picture beside a link; readers go on to the head itself.
location.replace(/** @type {HTMLAnchorElement} */ (document.getElementById("head")).href);
